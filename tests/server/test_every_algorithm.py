"""Every algorithm ends with the same bits in one process, over lanes and workers, resumed, and over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fedopt
from fedopt.algorithms import ALGORITHMS
from fedopt.errors import InvalidExperiment
from tests.server.test_same_numbers import deployed

ROUNDS = 3


def experiment(name: str, **run: Any) -> fedopt.Experiment:
    """Three rounds of two ragged clients out of four, or of all four where the algorithm needs them all."""

    def sized(cohort: int) -> fedopt.Experiment:
        return fedopt.Experiment(
            data={"clients": 4, "alpha": 0.5},
            model={"name": "mlp", "hidden": [6]},
            algorithm={"name": name},
            local={"lr": 0.02},
            run={"rounds": ROUNDS, "cohort": cohort, "dtype": "float64", "seed": 3, "device": "cpu", **run},
        )

    try:
        return sized(2)
    except InvalidExperiment:
        return sized(4)


PRESETS = {"fedadagrad", "fedyogi", "fedavgm", "fedsam", "mofedsam"}
"""They share the code of another algorithm of the list, with other settings."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in PRESETS else []) for name in ALGORITHMS]
)
def test_lanes_workers_and_a_stop_change_no_bit(name: str, tmp_path: Path) -> None:
    alone = fedopt.run(experiment(name, workers=1, lanes=1), tmp_path / "alone")
    beside = fedopt.run(experiment(name, workers=1, lanes=4), tmp_path / "beside")
    fedopt.run(experiment(name, workers=2, lanes=1, rounds=ROUNDS - 1), tmp_path / "workers")
    resumed = fedopt.resume(tmp_path / "workers", [f"run.rounds={ROUNDS}"])
    assert alone.summary.final.test_loss != alone.records[0].test_loss or name == "local"
    assert {h.summary.weights_sha256 for h in (alone, beside, resumed)} == {alone.summary.weights_sha256}
    assert [h.records[-1].train_loss for h in (beside, resumed)] == [alone.records[-1].train_loss] * 2
    assert [h.records[-1].clients for h in (beside, resumed)] == [alone.records[-1].clients] * 2


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if not ALGORITHMS.resolve(name).pools_data])
def test_a_deployed_federation_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    here, there = fedopt.run(experiment(name), tmp_path / "here"), deployed(experiment(name), tmp_path / "there")
    assert here.records[-1].train_loss == there.records[-1].train_loss
    assert here.summary.final == there.summary.final
    for weight, values in here.weights.items():
        assert torch.equal(values, there.weights[weight]), weight
