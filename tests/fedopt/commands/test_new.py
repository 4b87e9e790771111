"""`fedopt new`: what it writes runs, and it overwrites nothing."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import pytest

from fedopt.commands.new import TEMPLATES, write_project
from fedopt.errors import InvalidExperiment
from tests.commands import fedopt, fedopt_here

ROOT = Path(__file__).parents[3]


def test_a_new_project_runs(tmp_path: Path) -> None:
    done = fedopt_here("new", "mine", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "mine is written; next: fedopt run mine/experiment.toml\n"), (
        done.stderr
    )
    run = fedopt("run", "mine/experiment.toml", "--set", "run.rounds=3", "--out", "first", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["rounds"] == 3
    again = fedopt_here("new", "mine", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == "fedopt: mine exists already; give the name of a new folder\n"


def test_a_new_flower_app_is_the_example(tmp_path: Path) -> None:
    """tests/fedopt/flower/test_example.py runs the example."""
    done = fedopt_here("new", "some/flower-app", "--flower", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "some/flower-app is written; next: flwr run some/flower-app --stream\n"
    example = ROOT / "examples" / "flower-app"
    names = sorted(file.name for file in (TEMPLATES / "flower").iterdir() if file.is_file())
    match, mismatch, errors = filecmp.cmpfiles(tmp_path / "some" / "flower-app", example, names, shallow=False)
    assert (sorted(match), mismatch, errors) == (names, [], [])


def test_a_flower_app_has_its_own_name_and_flower_accepts_it(tmp_path: Path) -> None:
    write_project(tmp_path / "other-name", "flower")
    assert 'name = "other-name"' in (tmp_path / "other-name" / "pyproject.toml").read_text()
    with pytest.raises(InvalidExperiment, match="use letters, digits and hyphens"):
        write_project(tmp_path / "other_name", "flower")
