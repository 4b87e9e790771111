"""The ready ClientApp trains as `fedopt run` does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from flwr.app import Context
from torch import Tensor

import fedopt
import fedopt.flower
from fedopt.flower import InProcessGrid, Training, client_app
from tests.fedopt.flower.apps import Digits


def test_a_ready_app_ends_with_the_weights_of_fedopt_run(tmp_path: Path) -> None:
    experiment = fedopt.Experiment(
        data={"clients": 4, "alpha": 0.5},
        model={"name": "logistic"},
        algorithm={"name": "scaffold"},
        local={"lr": 0.05, "momentum": 0.5, "steps": 7, "batch_size": 20},
        run={"rounds": 3, "participation": 1.0, "dtype": "float64"},
        metrics={"drift_every": 0, "clients_every": 0},
    )
    history = fedopt.run(experiment, tmp_path / "run")
    digits = Digits.of(experiment)

    def data(context: Context) -> tuple[Tensor, Tensor]:
        return digits.clients[int(context.node_config["partition-id"])]

    training = Training(lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.5), batch_size=20, steps=7)
    app = client_app(digits.model, data, training)
    result = fedopt.flower.Scaffold(digits.model()).start(InProcessGrid(app, 4), digits.start(), num_rounds=3)
    for name, value in result.arrays.to_torch_state_dict().items():
        torch.testing.assert_close(value, history.weights[name], rtol=0, atol=1e-12)

    model = digits.model()
    model.load_state_dict(result.arrays.to_torch_state_dict())
    x, y = (torch.cat(parts) for parts in zip(*digits.clients, strict=True))
    found = result.evaluate_metrics_clientapp[3]
    assert found["accuracy"] == pytest.approx((model(x).argmax(1) == y).double().mean().item())
    assert found["eval_loss"] == pytest.approx(torch.nn.functional.cross_entropy(model(x), y).item())
