"""Losses on every backend: against torch's own, against autograd, and the same bits whatever lanes run beside."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.lanes.backends import Backend, lane_gradients
from clients.lanes.choice import choose_backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from clients.lanes.verification import why_not_trusted
from fedopt.algorithms.fedavg import FedAvg
from fedopt.models.output_losses import OutputLoss
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.task import Task
from fedopt.vectors.layout import Layout

N, OUTPUTS = 40, 3
WEIGHTS = (0.5, 2.0, 1.0)


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Samples, class indices and distributions over the classes."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, OUTPUTS, (N,), generator=generator)
    soft = torch.rand(N, OUTPUTS, generator=generator, dtype=torch.float64)
    return x.to(dtype), y, (soft / soft.sum(1, keepdim=True)).to(dtype)


def module(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, OUTPUTS)).to(dtype)


LOSSES: dict[str, OutputLoss] = {
    "smoothed": OutputLoss("cross_entropy", 0.2),
    "weighted": OutputLoss("cross_entropy", 0.1, WEIGHTS),
    "mse": OutputLoss("mse_loss"),
    "l1": OutputLoss("l1_loss"),
    "kl": OutputLoss("kl_div"),
    "bce": OutputLoss("binary_cross_entropy_with_logits"),
}

BY_TORCH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "kl": lambda z, t: F.kl_div(F.log_softmax(z, 1), t, reduction="batchmean"),
    "bce": F.binary_cross_entropy_with_logits,
}


@pytest.mark.parametrize("name", BY_TORCH)
def test_a_loss_of_numbers_is_that_of_torch(name: str) -> None:
    x, y, soft = data()
    outputs = module()(x)
    for targets, numbers in ((soft, soft), (y, F.one_hot(y, OUTPUTS).double())):
        torch.testing.assert_close(LOSSES[name](outputs, targets), BY_TORCH[name](outputs, numbers))
        assert LOSSES[name](outputs, targets, reduction="none").shape == (N,)


def test_weighted_cross_entropy_is_torchs_over_the_number_of_samples() -> None:
    x, y, _ = data()
    outputs, weights = module()(x), torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = F.cross_entropy(outputs, y, weights, reduction="sum", label_smoothing=0.1) / N
    torch.testing.assert_close(LOSSES["weighted"](outputs, y), expected)
    smoothed = F.cross_entropy(outputs, y, label_smoothing=0.2)
    torch.testing.assert_close(LOSSES["smoothed"](outputs, y), smoothed)


@pytest.mark.parametrize("backend", ["stacked", "each", "vmap"])
@pytest.mark.parametrize("name", LOSSES)
def test_every_backend_agrees_with_autograd(name: str, backend: Backend) -> None:
    x, y, soft = data(torch.float32)
    task = Task(module(torch.float32), LOSSES[name])
    make = functools.partial(lane_gradients, backend)
    for targets in (y,) if LOSSES[name].name == "cross_entropy" else (y, soft):
        assert why_not_trusted(make, task, x, targets) is None
        assert choose_backend("auto", task, x, targets).backend == "stacked"


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_client_learns_the_same_bits_beside_any_others(name: str, optimizer: str) -> None:
    x, y, soft = data(torch.float32)
    targets = soft if LOSSES[name].name != "cross_entropy" else y
    start = Layout.of(module()).flatten(module(torch.float32))
    parts = [np.arange(0, 17), np.arange(17, 22), np.arange(22, N)]
    local = LocalSettings(optimizer=optimizer, lr=0.3, epochs=3, batch_size=4)
    found = []
    for lanes in (1, 3):
        training = LocalTraining(Task(module(torch.float32), LOSSES[name]), FedAvg(), local, 0)
        trainer = LaneTrainer(training, (x, targets), Execution("stacked", lanes))
        jobs = [Job(WorkOrder(client, None), part, {}) for client, part in enumerate(parts)]
        results = [
            result for k in range(0, 3, lanes) for result in trainer.train(Broadcast(1, start), jobs[k : k + lanes])
        ]
        found.append({r.order.client: (r.up["dx"].clone(), r.numbers.loss) for r in results})
    for client in range(3):
        (alone, loss), (beside, other) = (lanes[client] for lanes in found)
        assert torch.equal(alone, beside)
        assert loss == other
