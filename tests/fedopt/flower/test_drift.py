"""`MeasureDrift` around Flower's own FedAvg: the measures of two updates in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedopt.flower import InProcessGrid, MeasureDrift

UPDATES, SAMPLES = ([3.0, 4.0], [-4.0, 3.0]), (1, 3)
"""Orthogonal updates of length 5, of clients with weights 1/4 and 3/4."""


def test_two_updates_around_flowers_own_strategy() -> None:
    app = ClientApp()

    @app.train()
    def _train(msg: Message, context: Context) -> Message:
        number = context.node_config["partition-id"]
        assert isinstance(number, int)
        w = msg.content.array_records["arrays"]["w"].numpy() + np.array(UPDATES[number])
        metrics = MetricRecord({"num-examples": SAMPLES[number], "loss": float(number)})
        return Message(RecordDict({"arrays": ArrayRecord({"w": Array(w)}), "metrics": metrics}), reply_to=msg)

    strategy = MeasureDrift(FedAvg(fraction_evaluate=0.0), by="layers")
    start = ArrayRecord({"w": Array(np.array([10.0, 20.0]))})
    result = strategy.start(InProcessGrid(app, 2), start, num_rounds=2)

    # d = (3, 4) / 4 + (-4, 3) 3 / 4 = (-2.25, 3.25), |d|^2 = 15.625
    expected = {"norm": 15.625**0.5, "mean_norm": 5.0, "dispersion": 25 - 15.625, "ratio": 25 / 15.625, "cosine": 0.0}
    for metrics in result.train_metrics_clientapp.values():
        assert metrics["loss"] == pytest.approx(0.75)
        for name, value in expected.items():
            assert metrics[f"drift.{name}"] == pytest.approx(value, abs=1e-9)
            assert metrics[f"drift.w.{name}"] == pytest.approx(value, abs=1e-9)
    torch.testing.assert_close(
        torch.tensor(result.arrays["w"].numpy()), torch.tensor([10 - 2 * 2.25, 20 + 2 * 3.25], dtype=torch.float64)
    )
