"""What a resumed run may set anew, and what it may not."""

from __future__ import annotations

import pytest

from fedopt.experiment.file import read_experiment
from fedopt.runs.checkpoint import changes_between

COMPUTES = [
    *("data.alpha=0.7", "data.clients=11", "data.partition=iid", "data.min_samples=3", "model.name=logistic"),
    *("algorithm.name=scaffold", "algorithm.server_lr=0.5", "algorithm.weighting=uniform", "local.lr=0.01"),
    *("local.momentum=0.5", "local.batch_size=8", "local.steps=3", "local.optimizer=adam", "run.seed=1"),
    *("run.cohort=3", "run.dtype=float64", "metrics.divergence=true"),
]
CONDUCTS = [
    *("data.download=true", "run.rounds=99", "run.lanes=2", "run.workers=2", "run.threads=2"),
    *("run.checkpoint_every=7", "run.keep_models=2", "run.target_accuracy=0.5"),
    *("metrics.drift_every=3", "metrics.clients_every=3"),
]


@pytest.mark.parametrize("setting", COMPUTES)
def test_what_the_rounds_so_far_have_computed_with_may_not_change(setting: str) -> None:
    changes = changes_between(read_experiment(None, []), read_experiment(None, [setting]))
    assert any(change.startswith(f"{setting.partition('=')[0]} was ") for change in changes)


@pytest.mark.parametrize("setting", CONDUCTS)
def test_how_the_rounds_are_conducted_may_change(setting: str) -> None:
    assert changes_between(read_experiment(None, []), read_experiment(None, [setting])) == []
