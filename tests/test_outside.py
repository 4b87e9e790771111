"""A package from outside adds one of each family, and fedopt runs them in every engine without knowing them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fedopt
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import read_experiment, to_toml
from tests.outside.algorithm import Nudged
from tests.outside.optimizer import Signum
from tests.outside.partition import Dealt
from tests.outside.rule import Median
from tests.outside.schedule import Halving
from tests.outside.stage import EightBits

ROOT = Path(__file__).parents[1]

KEYS: dict[str, Any] = {
    "data": {"clients": 4, "partition": "tests.outside.partition:Dealt", "first": 0.25},
    "algorithm": {"name": "tests.outside.algorithm:Nudged", "pull": 0.2},
    "local": {
        "optimizer": "tests.outside.optimizer:Signum",
        "mean": 0.7,
        "state": "keep",
        "schedule": "tests.outside.schedule:Halving",
        "every": 1,
        "lr": 0.002,
        "epochs": 1,
    },
    "channel": {"stages": [{"name": "tests.outside.stage:EightBits"}]},
    "gathering": {"name": "tests.outside.rule:Median"},
    "run": {"rounds": 3, "participation": 1.0, "device": "cpu", "dtype": "float64"},
    "metrics": {"clients_every": 0, "drift_every": 2},
}


def as_objects() -> Experiment:
    return Experiment(
        data={"clients": 4, "partition": Dealt(first=0.25)},
        algorithm=Nudged(pull=0.2),
        local={
            "optimizer": Signum(mean=0.7),
            "state": "keep",
            "schedule": Halving(every=1),
            "lr": 0.002,
            "epochs": 1,
        },
        channel={"stages": [EightBits()]},
        gathering=Median(),
        run=KEYS["run"],
        metrics=KEYS["metrics"],
    )


def with_run(**changes: Any) -> Experiment:
    return Experiment(**{**KEYS, "run": {**KEYS["run"], **changes}})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> fedopt.History:
    """In one process, one lane."""
    return fedopt.run(with_run(workers=1, lanes=1), tmp_path_factory.mktemp("outside") / "run")


def file_of(folder: Path) -> Path:
    file = folder / "outside.toml"
    file.write_text(to_toml(Experiment(**KEYS)))
    return file


def weights_of(command: list[str], run: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=run.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sha256: str = json.loads((run / "summary.json").read_text())["weights_sha256"]
    return sha256


def test_names_objects_and_toml_are_the_same_experiment(tmp_path: Path) -> None:
    named = Experiment(**KEYS)
    assert named == as_objects()
    assert read_experiment(file_of(tmp_path)) == named
    assert isinstance(named.data.partition, Dealt)
    assert isinstance(named.local.optimizer, Signum)
    assert named.method.sends_up == ("dx", "halved")


def test_the_numbers_and_the_record_are_those_of_the_algorithm(reference: fedopt.History) -> None:
    first, second, third = reference.records
    assert first.algorithm == {"nudge": 0.0}, "nothing has come down yet"
    assert second.algorithm is not None
    assert second.algorithm["nudge"] is not None
    assert second.algorithm["nudge"] > 0
    assert third.bytes_up < third.bytes_down, "eight bits a number go up"


@pytest.mark.parametrize(("workers", "lanes"), [(1, 4), (2, 1), (2, 2)])
def test_lanes_and_workers_change_no_digit(workers: int, lanes: int, reference: fedopt.History, tmp_path: Path) -> None:
    history = fedopt.run(with_run(workers=workers, lanes=lanes), tmp_path / "run")
    assert history.summary.weights_sha256 == reference.summary.weights_sha256


def test_a_resumed_run_ends_with_the_same_bits(reference: fedopt.History, tmp_path: Path) -> None:
    fedopt.run(with_run(rounds=1), tmp_path / "run")
    assert fedopt.resume(tmp_path / "run", ["run.rounds=3"]).summary.weights_sha256 == reference.summary.weights_sha256


@pytest.mark.deployment
@pytest.mark.parametrize(
    "engine", [pytest.param("ranks", marks=pytest.mark.slow), "federation", pytest.param("ray", marks=pytest.mark.slow)]
)
def test_every_engine_ends_with_the_same_bits(engine: str, reference: fedopt.History, tmp_path: Path) -> None:
    run, fedopt_module = tmp_path / "run", [sys.executable, "-m", "fedopt"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fedopt"]
    command = {
        "ranks": [*torchrun, "run"],
        "federation": [*fedopt_module, "federation"],
        "ray": [*fedopt_module, "run", "--engine", "ray"],
    }[engine]
    found = weights_of([*command, str(file_of(tmp_path)), "--out", str(run)], run)
    assert found == reference.summary.weights_sha256


def test_the_median_is_what_the_server_uses() -> None:
    collector = Median().collector()
    collector.begin()
    for client, value in enumerate([1.0, 100.0, 3.0]):
        collector.fold(client, {"dx": torch.tensor([value])}, {}, 1 / 3)
    assert collector.totals().mean("dx").item() == 3.0
