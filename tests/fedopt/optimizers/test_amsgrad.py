"""AMSGrad against a plain loop from the paper, with moments that start anew, are kept, or travel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import PROBLEMS, Problem, errors

LR, BETA1, BETA2, EPS = 0.02, 0.8, 0.9, 0.05
State = tuple[Tensor, Tensor, Tensor]


def plainly(problem: Problem, local: LocalSettings, cohort: int, rounds: int) -> Iterator[Tensor]:
    """x after each round of FedAvg."""
    x, p = problem.start, problem.weights()
    fresh = torch.zeros_like(x), torch.full_like(x, EPS**2), torch.full_like(x, EPS**2)
    own: dict[int, State] = {}
    common = fresh
    for round_, clients in problem.rounds(cohort, rounds):
        share = p[clients] / p[clients].sum()
        moved, ends = torch.zeros_like(x), []
        for i in clients:
            before = {"reset": fresh, "keep": own.get(i, fresh), "average-v": common}[local.state]
            y, (m, v, v_max) = x.clone(), before
            for batch in problem.batches(local, round_, i):
                g = problem.gradient(i, y, batch)
                m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g**2
                v_max = torch.maximum(v_max, v)
                y = y - LR * m / v_max.sqrt()
            own[i] = m, v, v_max
            ends.append(v_max)
            moved += p[i] / p[clients].sum() * (y - x)
        x = x + moved
        mean = share @ torch.stack(ends)
        common = torch.zeros_like(x), mean, mean
        yield x


@pytest.mark.parametrize("state", ["reset", "keep", "average-v"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_rounds_are_those_of_the_paper(name: str, state: str) -> None:
    problem = PROBLEMS[name]
    keys = {"optimizer": "amsgrad", "betas": (BETA1, BETA2), "eps": EPS, "lr": LR, "state": state}
    local = LocalSettings(epochs=2, batch_size=3, **keys)
    assert max(errors(problem.play(FedAvg(), local, 3, 4), plainly(problem, local, 3, 4))) < 1e-9
