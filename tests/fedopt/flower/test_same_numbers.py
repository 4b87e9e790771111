"""A Flower App with fedopt's strategy ends with the weights of `fedopt run`: same data, partition, seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fedopt
import fedopt.flower
from fedopt.algorithms.base import Algorithm
from fedopt.flower import AlgorithmStrategy, InProcessGrid
from tests.fedopt.flower.apps import Digits, Training
from tests.fedopt.flower.own import OwnModels
from tests.outside.algorithm import Nudged
from tests.outside.schedule import Halving

OptimizerOf = Callable[[nn.Module], torch.optim.Optimizer]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05)


def nesterov(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], OptimizerOf]] = {
    "FedAvg": ({"name": "fedavg", "server_lr": 0.8}, {"lr": 0.05}, sgd),
    "Scaffold": ({"name": "scaffold"}, {"lr": 0.05}, sgd),
    "Scaffold with Nesterov and clipping": (
        {"name": "scaffold", "weighting": "uniform"},
        {"lr": 0.02, "momentum": 0.9, "nesterov": True, "clip": 1.0},
        nesterov,
    ),
    "Scaffold with Adam": ({"name": "scaffold"}, {"lr": 0.01, "optimizer": "adam"}, adam),
    "Scaffold with falling rates": (
        {"name": "scaffold"},
        {"lr": 0.05, "schedule": "tests.outside.schedule:Halving"},
        sgd,
    ),
    "Nudged": ({"name": "tests.outside.algorithm:Nudged", "pull": 0.2}, {"lr": 0.05}, sgd),
    "OwnModels": ({"name": "tests.fedopt.flower.own:OwnModels"}, {"lr": 0.05}, sgd),
    "Scaffold, full gradients": ({"name": "scaffold", "variant": "full-gradient"}, {"lr": 0.05}, sgd),
}


OWN: dict[str, type[Algorithm]] = {"Nudged": Nudged, "OwnModels": OwnModels}
"""From outside: the one uses vectors and numbers both ways, states and randomness on the server; the other begins
elsewhere than at x."""


@pytest.mark.parametrize("case", CASES)
def test_a_flower_app_and_fedopt_run_end_with_the_same_weights(case: str, tmp_path: Path) -> None:
    algorithm, local, optimizer = CASES[case]
    experiment = fedopt.Experiment(
        data={"clients": 6, "alpha": 0.5},
        model={"name": "mlp", "hidden": (8,)},
        algorithm=algorithm,
        local={**local, "epochs": 2, "batch_size": 32},
        run={"rounds": 4, "participation": 0.5, "dtype": "float64", "seed": 3},
        metrics={"drift_every": 0, "clients_every": 0},
    )
    history = fedopt.run(experiment, tmp_path / "run")

    digits = Digits.of(experiment)
    training = Training(
        digits.clients, digits.model, optimizer, 32, clip=local.get("clip"), algorithms=list(OWN.values())
    )
    if "schedule" in local:
        training.rate_of = lambda round_, step: Halving().rate(local["lr"], round_, step)
    settings = {key: value for key, value in algorithm.items() if key != "name"}
    options: dict[str, Any] = {"fraction_train": 0.5, "fraction_evaluate": 0.0, "seed": 3}
    strategy: AlgorithmStrategy
    if case in OWN:
        strategy = AlgorithmStrategy(OWN[case](**settings), digits.model(), **options)
    else:
        kind = getattr(fedopt.flower, case.partition(" ")[0].rstrip(","))
        strategy = kind(digits.model(), **settings, **options)
    measured = fedopt.flower.MeasureDrift(
        strategy, by="layers", weighted_by=None if algorithm.get("weighting") == "uniform" else "num-examples"
    )
    result = measured.start(InProcessGrid(training.app(), 6), digits.start(), num_rounds=4)

    for name, value in result.arrays.to_torch_state_dict().items():
        torch.testing.assert_close(value, history.weights[name], rtol=0, atol=1e-12)
    records = list(history.records)
    for number, metrics in result.train_metrics_clientapp.items():
        record = records[number - 1]
        assert metrics["train_loss"] == pytest.approx(record.train_loss, rel=1e-9)
        assert record.drift is not None
        for name in ("norm", "mean_norm", "dispersion", "ratio", "cosine"):
            assert metrics[f"drift.{name}"] == pytest.approx(getattr(record.drift, name), rel=1e-9)
            layer = next(iter(record.drift.layers))
            assert metrics[f"drift.{layer}.{name}"] == pytest.approx(
                getattr(record.drift.layers[layer], name), rel=1e-9
            )
