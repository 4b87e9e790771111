"""What the README shows works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from fedopt.experiment import Experiment
from fedopt.history import RoundRecord, Summary

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_its_experiment_is_valid() -> None:
    experiment = Experiment(**tomllib.loads(block("toml")))
    assert experiment.notes() == []
    assert experiment.cohort_size == 10


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
