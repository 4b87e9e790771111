"""DiLoCo after arXiv:2311.08105, Algorithm 1: inner AdamW that each worker keeps, outer Nesterov."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, torch_optimizer


def diloco(
    problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, outer_lr: float, outer_momentum: float
) -> Iterator[Tensor]:
    """theta after each round; OuterOpt is torch's own SGD with Nesterov's momentum, on the outer gradient."""
    theta, p = nn.Parameter(problem.start.clone()), problem.weights()
    outer = torch.optim.SGD([theta], lr=outer_lr, momentum=outer_momentum, nesterov=True)
    workers: dict[int, tuple[nn.Parameter, torch.optim.Optimizer]] = {}
    for round_, cohort in problem.rounds(cohort_size, rounds):
        outer_gradient = torch.zeros_like(theta)
        for i in cohort:
            if i not in workers:
                replica = nn.Parameter(theta.detach().clone())
                workers[i] = replica, torch_optimizer(local, replica)
            replica, inner = workers[i]
            replica.data.copy_(theta.detach())
            for batch in problem.batches(local, round_, i):
                replica.grad = problem.gradient(i, replica.detach(), batch)
                inner.step()
            outer_gradient += p[i] / p[cohort].sum() * (theta.detach() - replica.detach())
        theta.grad = outer_gradient
        outer.step()
        yield theta.detach().clone()
