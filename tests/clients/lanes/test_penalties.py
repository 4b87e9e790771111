"""Penalties l1 and l2: against autograd on the loss that contains them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.lanes.backends import Backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms.scaffold import Scaffold
from fedopt.drift.gradients import GRADIENT
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.task import Task
from fedopt.vectors.layout import Layout

L1, L2, LR, STEPS = 0.02, 0.3, 0.1, 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 4, generator=generator).double(), torch.arange(12) % 3


def penalty(module: nn.Module) -> Tensor:
    flat = torch.cat([parameter.reshape(-1) for parameter in module.parameters()])
    return L1 * flat.abs().sum() + L2 / 2 * flat.square().sum()


OPTIMIZERS: dict[str, dict[str, Any]] = {"sgd": {}, "adam": {"optimizer": "adam"}}


@pytest.mark.parametrize("backend", ["stacked", "each", "vmap"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clients_step_on_the_loss_with_its_penalties(name: str, backend: Backend) -> None:
    module, (x, y) = network(), data()
    start, local = (
        Layout.of(module).flatten(module),
        LocalSettings(lr=LR, steps=STEPS, batch_size="full", l1=L1, l2=L2, **OPTIMIZERS[name]),
    )
    optimizer = local.optimizer.torch_optimizer(list(module.parameters()), LR)
    assert optimizer is not None
    losses, gradients = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        torch.autograd.backward(loss + penalty(module))
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.reshape(-1) for p in module.parameters() if p.grad is not None]))
        optimizer.step()
    trainer = LaneTrainer(LocalTraining(Task(network()), Scaffold(), local, 0), (x, y), Execution(backend, 2))
    zero = torch.zeros_like(start)
    jobs = [Job(WorkOrder(client, None), np.arange(12), {"c_i": zero}) for client in range(2)]
    for result in trainer.train(Broadcast(1, start, {"c": zero}, gradient=True), jobs):
        torch.testing.assert_close(result.up["dx"], Layout.of(module).flatten(module) - start)
        torch.testing.assert_close(result.state["c_i"], torch.stack(gradients).mean(0))
        torch.testing.assert_close(result.up[GRADIENT], gradients[0])  # the full gradient at x
        assert result.numbers.loss == pytest.approx(np.mean(losses), rel=1e-12)  # of the data alone
