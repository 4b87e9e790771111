"""What the README shows works as it stands."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from fedopt.data.label_skew import LabelSpread
from fedopt.experiment.experiment import Experiment
from fedopt.runs.history import RoundRecord, Summary
from simulations.study.file import read_study
from simulations.study.plan import combinations, planned_runs
from tests.commands import fedopt

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, number: int = 0) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return found[number]


def test_its_experiment_is_valid() -> None:
    experiment = Experiment(**tomllib.loads(block("toml")))
    assert experiment.notes() == []
    assert experiment.cohort_size == 10


def test_its_experiment_is_the_example_that_is_shipped_and_runs(shared_data: Path, tmp_path: Path) -> None:
    example = ROOT / "examples" / "mnist.toml"
    assert example.read_text() == block("toml")
    assert set(re.findall(r"fedopt \w+ (\S+\.toml)", README)) == {"examples/mnist.toml"}
    short = ("--set", f"data.path={shared_data}", "--set", "run.rounds=1", "--set", "local.steps=5")
    done = fedopt("run", example, *short, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 1


def test_the_licence_is_the_one_that_pyproject_names() -> None:
    """The text's checksum is that of https://www.apache.org/licenses/LICENSE-2.0.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = (ROOT / "LICENSE").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_its_study_is_valid(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(block("toml", 1))
    _, study = read_study(tmp_path / "study.toml", [], None)
    assert study.search is not None
    assert len(planned_runs(study, combinations(study))) == 2 * 4 * 2 * 3


def test_its_python_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("python")], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert float(done.stdout.split()[0]) > 0.5
    assert (tmp_path / "runs" / "from-python" / "summary.json").is_file()


def test_its_table_names_every_field() -> None:
    metrics, summary = (
        next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        for name in ("metrics.jsonl", "summary.json")
    )
    assert all(name in metrics for name in RoundRecord.model_fields)
    assert all(name in summary for name in Summary.model_fields)
    partition = next(line for line in README.splitlines() if line.startswith("| `partition.json`"))
    assert all(name in partition for name in LabelSpread.model_fields)
