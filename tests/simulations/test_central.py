"""The centralized run beside a federated one, against a plain loop over the minibatches that it says it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedopt.data.batches import BatchPlan, plan_samples
from fedopt.data.step_counts import StepCounts
from fedopt.optimizers.local import LocalSettings
from fedopt.round.loop import RoundWork
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.benchmarks.plain_loop import batches_of, train_plainly
from simulations.centralized import CentralRun

SIZES = (5, 12, 20, 3)
LOCAL = LocalSettings(lr=0.1, momentum=0.5, epochs=2, batch_size=4)


def work(round_: int, cohort: list[int], left_out: dict[int, str]) -> RoundWork:
    """A round of which the central run must only know whose work is in the model."""
    return RoundWork(round_, cohort, left_out, 1, 1, 0.0, 0.0, 0, 0, 0.0)


def test_each_round_it_sees_as_many_samples_as_the_clients_whose_work_counts_in_batches_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(SIZES), 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (sum(SIZES),), generator=generator)
    module = nn.Sequential(nn.Linear(6, 3)).double()
    layout = Layout.of(module)
    federated = layout.flatten(module) + 0.1
    central = CentralRun(Task(module), StepCounts(LOCAL, 7), (x, y), SIZES)
    rounds: list[tuple[list[int], dict[int, str], int]] = [
        ([0, 1, 2], {}, 2 * (5 + 12 + 20)),
        ([1, 2, 3], {2: "it is gone"}, 2 * (12 + 3)),
        ([0, 3], {}, 2 * (5 + 3)),
    ]
    plain: nn.Module = module
    plans: list[BatchPlan] = []
    for number, (cohort, left_out, seen) in enumerate(rounds, 1):
        found = central.divergence(federated, work(number, cohort, left_out))
        plans.append(plan_samples(len(y), seen, LOCAL, stream(7, Purpose.CENTRAL, number)))
        assert plans[-1].counts.sum() == seen
        plain = train_plainly(plain, LOCAL, x, y, batches_of(plans[-1], np.arange(len(y))))
        there = layout.flatten(plain)
        expected = torch.linalg.vector_norm(federated - there) / torch.linalg.vector_norm(there)
        assert found == pytest.approx(expected.item(), rel=1e-10)
