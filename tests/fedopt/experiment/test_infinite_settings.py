"""Settings that are infinite, or no number, come back as they were from every file and message."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

import fedopt
from fedopt.experiment.file import as_sections, to_toml
from fedopt.optimizers.sam import Sam
from fedopt.wire import Hello

FACTORY = """
from torch import nn

def build(sample_shape, classes, bound, nothing):
    assert bound == float("inf") and nothing != nothing
    return nn.Sequential(nn.Flatten(), nn.Linear(sample_shape[-1] ** 2, classes), nn.Hardtanh(-bound, bound))
"""


def experiment(rounds: int, **model: Any) -> fedopt.Experiment:
    return fedopt.Experiment(
        model=model or {"name": "logistic"},
        local={"optimizer": "sam", "p": math.inf, "steps": 2},
        run={"rounds": rounds, "workers": 1},
    )


def test_a_run_with_p_infinite_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    fedopt.run(experiment(2), tmp_path / "run")
    resumed = fedopt.resume(tmp_path / "run", ["run.rounds=3"])
    assert resumed.summary.weights_sha256 == fedopt.run(experiment(3), tmp_path / "whole").summary.weights_sha256


def test_a_factory_gets_inf_and_nan_again_when_its_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "with_bounds.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"name": "with_bounds:build", "bound": math.inf, "nothing": math.nan}
    fedopt.run(experiment(1, **model), tmp_path / "run")
    assert fedopt.resume(tmp_path / "run", ["run.rounds=2"]).summary.rounds == 2


def test_experiment_toml_and_the_hello_to_clients_carry_them() -> None:
    asked = experiment(1, name="a.b:c", bound=[math.inf, {"deep": -math.inf}])
    assert as_sections(fedopt.Experiment(**tomllib.loads(to_toml(asked)))) == as_sections(asked)
    arrived = Hello.read(Hello.of("run", asked, (3,), ("a", "b")).fields()).sections()
    assert arrived["local"]["p"] == math.inf
    assert arrived["model"]["bound"] == [math.inf, {"deep": -math.inf}]
    assert fedopt.Experiment(**arrived).local.optimizer == Sam(p=math.inf)
