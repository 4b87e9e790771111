"""The module of a user's own model is found from any folder, and only on the machine that it is on."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedopt.errors import InvalidExperiment
from fedopt.experiment.file import read_experiment
from fedopt.runs.modules import recall_modules, record_modules
from fedopt.wire import Hello
from tests.commands import fedopt

FACTORY = """
from torch import nn

def build(sample_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes, bias={bias}))
"""

EXPERIMENT = """
[model]
name = "own_factory:build"
[run]
rounds = 1
workers = 1
"""


def project(folder: Path, bias: bool = True) -> Path:
    folder.mkdir()
    (folder / "own_factory.py").write_text(FACTORY.format(bias=bias))
    (folder / "own.toml").write_text(EXPERIMENT)
    return folder


def test_a_run_goes_on_and_is_reported_from_another_folder(tmp_path: Path) -> None:
    own, elsewhere = project(tmp_path / "own"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    begun = fedopt("run", "own.toml", "--out", tmp_path / "run", cwd=own)
    assert begun.returncode == 0, begun.stderr
    resumed = fedopt("run", "--resume", tmp_path / "run", "--set", "run.rounds=2", "--json", "--quiet", cwd=elsewhere)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rounds"] == 2
    reported = fedopt("report", tmp_path / "run", cwd=elsewhere)
    assert reported.returncode == 0, reported.stderr

    other = project(tmp_path / "other", bias=False)  # a module of the same name, which would be imported first
    refused = fedopt("run", "--resume", tmp_path / "run", "--set", "run.rounds=3", cwd=other)
    assert refused.returncode == 2
    assert f"own_factory:build is in {other} and in {own}, where the run began" in refused.stderr

    own.rename(tmp_path / "moved")  # the module that is at hand is the only one
    assert fedopt("run", "--resume", tmp_path / "run", "--quiet", cwd=tmp_path / "moved").returncode == 0


def test_what_an_older_run_has_recorded_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "factory_of_an_older_run.py").write_text(FACTORY.format(bias=True))
    place = {"module": "factory_of_an_older_run", "folder": str(tmp_path / "own")}
    (tmp_path / "model-module.json").write_text(json.dumps(place))
    recall_modules({"model": {"name": "another_factory:build"}}, tmp_path)
    assert find_spec("factory_of_an_older_run") is None
    recall_modules({"model": {"name": "factory_of_an_older_run:build"}}, tmp_path)
    assert find_spec("factory_of_an_older_run") is not None
    (tmp_path / "model-module.json").write_text("{")
    with pytest.raises(InvalidExperiment, match=r"model-module\.json cannot be read: remove it, or mend it"):
        recall_modules({}, tmp_path)


def test_a_run_records_all_modules_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "one_of_two.py").write_text("")
    (tmp_path / "two_of_two").mkdir()
    (tmp_path / "two_of_two" / "__init__.py").write_text("")
    record_modules(["one_of_two:A", "two_of_two.part:B", "one_of_two:C", "gone_from_here:D"], tmp_path)
    recorded = json.loads((tmp_path / "modules.json").read_text())
    assert recorded == {"folders": {"one_of_two": str(tmp_path), "two_of_two": str(tmp_path)}}


def test_it_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    own = project(tmp_path / "own")
    done = fedopt("run", own / "own.toml", "--out", "run", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    studied = fedopt("study", own / "own.toml", "--seeds", "1", "--out", "study", cwd=tmp_path)
    assert studied.returncode == 0, studied.stderr


def test_the_folder_does_not_travel(tmp_path: Path) -> None:
    own = project(tmp_path / "own")
    hello = Hello.of("run", read_experiment(own / "own.toml"), (1, 8, 8), ("a", "b"))
    assert "own_factory:build" in hello.experiment
    assert str(tmp_path) not in hello.experiment
