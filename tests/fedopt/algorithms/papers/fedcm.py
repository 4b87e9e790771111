"""FedCM after arXiv:2106.10874, Algorithm 1, and MoFedSAM after arXiv:2206.02618, Algorithm 2.

The paper's Delta is - sum (x_i,K - x) / (eta_l K |S|). With unequal steps and rates eta_l K is the sum of a client's
rates, and Delta the server's mean move over the mean of these sums, both weighted alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem


def fedcm(
    problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, alpha: float, rho: float = 0.0
) -> Iterator[tuple[Tensor, Tensor]]:
    """x and Delta after each round of plain SGD steps."""
    x, p = problem.start, problem.weights()
    delta = torch.zeros_like(x)
    for round_, cohort in problem.rounds(cohort_size, rounds):
        moved, rates = torch.zeros_like(x), 0.0
        for i in cohort:
            x_i, sum_of_rates = x, 0.0
            for step, batch in enumerate(problem.batches(local, round_, i)):
                rate = local.schedule.rate(local.lr, round_, step)
                g = problem.gradient(i, x_i, batch)
                if rho:
                    g = problem.gradient(i, x_i + rho * g / g.norm(), batch)
                v = alpha * g + (1 - alpha) * delta
                x_i, sum_of_rates = x_i - rate * v, sum_of_rates + rate
            moved, rates = moved + p[i] * (x_i - x), rates + float(p[i]) * sum_of_rates
        x, delta = x + moved / p[cohort].sum(), -moved / rates
        yield x, delta
