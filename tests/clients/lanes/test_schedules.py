"""A rate that changes at every step: lanes against torch.optim with the same rates, SCAFFOLD's control included."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.lanes.backends import Backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms.scaffold import Scaffold
from fedopt.data.batches import plan_batches
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.schedules.base import Schedule
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout

SIZES, ROUND, SEED, CLASSES = (31, 7, 18), 3, 5, 4


class Decaying(Schedule):
    """From outside the registry."""

    power: float = 1.0

    def rate(self, lr: float, round_: int, step: int) -> float:
        return lr / math.pow(round_ + step, self.power)


SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {},  # the control is computed from the displacement
    "momentum": {"momentum": 0.7, "weight_decay": 0.01},
    "adam": {"optimizer": "adam"},
    "clip": {"clip": 0.3},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def plainly(local: LocalSettings, data: tuple[Tensor, Tensor], client: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    """y - x and the mean of one client's raw gradients, weighted by their rates, by torch.optim on the module."""
    module, (x, y) = network(), data
    layout = Layout.of(module)
    start, parameters = layout.flatten(module), list(module.parameters())
    optimizer = local.optimizer.torch_optimizer(parameters, local.lr)
    assert optimizer is not None
    plan = plan_batches(len(x), local, stream(SEED, Purpose.BATCHES, ROUND, client))
    raw, rates = torch.zeros_like(start), list[float]()
    for step in range(plan.steps):
        rows = plan.positions[step, : plan.counts[step]]
        gradients = torch.autograd.grad(F.cross_entropy(module(x[rows]), y[rows]), parameters)
        rate = local.lr / math.sqrt(ROUND + step)
        raw += rate * torch.cat([gradient.reshape(-1) for gradient in gradients])
        rates.append(rate)
        for parameter, gradient, own in zip(parameters, gradients, layout.split(shift).values(), strict=True):
            parameter.grad = gradient + own
        if local.clip is not None:
            nn.utils.clip_grad_norm_(parameters, local.clip)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return layout.flatten(module) - start, raw / math.fsum(rates)


@pytest.mark.parametrize("backend", ["stacked", "each", "vmap"])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_step_has_the_rate_of_its_schedule(name: str, backend: Backend) -> None:
    local = LocalSettings(schedule=Decaying(power=0.5), lr=0.1, epochs=2, batch_size=5, **SETTINGS[name])
    module = network()
    start = Layout.of(module).flatten(module)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(SIZES), 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (sum(SIZES),), generator=generator)
    c, *controls = 0.1 * torch.randn(1 + len(SIZES), len(start), generator=generator, dtype=torch.float64)
    ends = np.cumsum(SIZES)
    parts = [np.arange(end - size, end) for end, size in zip(ends, SIZES, strict=True)]
    training = LocalTraining(Task(copy.deepcopy(module)), Scaffold(), local, SEED)
    trainer = LaneTrainer(training, (x, y), Execution(backend, len(SIZES)))
    jobs = [Job(WorkOrder(i, None), parts[i], {"c_i": controls[i]}) for i in range(len(SIZES))]
    results = trainer.train(Broadcast(ROUND, start, {"c": c}), jobs)
    assert len({result.numbers.steps for result in results}) == len(SIZES)
    for result in results:
        client = result.order.client
        dx, mean = plainly(local, (x[parts[client]], y[parts[client]]), client, c - controls[client])
        torch.testing.assert_close(result.up["dx"], dx, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(result.state["c_i"], mean, rtol=1e-9, atol=1e-12)
