"""FedACG after arXiv:2201.03172, Algorithm 1: the server broadcasts theta + lambda m."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def fedacg(
    problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, lambda_: float, beta: float
) -> Iterator[Tensor]:
    """theta after each round."""
    theta, p = problem.start, problem.weights()
    m = torch.zeros_like(theta)
    for round_, cohort in problem.rounds(cohort_size, rounds):
        broadcast = theta + lambda_ * m
        delta = torch.zeros_like(theta)
        for i in cohort:

            def penalized(y: Tensor, batch: Tensor, i: int = i, center: Tensor = broadcast) -> Tensor:
                point = y.clone().requires_grad_()
                penalty = beta / 2 * ((point - center) ** 2).sum()
                return torch.autograd.grad(problem.loss(i, point, batch) + penalty, point)[0]

            theta_i = walk(local, broadcast, problem.batches(local, round_, i), penalized)
            delta += p[i] / p[cohort].sum() * (theta_i - broadcast)
        m = lambda_ * m + delta
        theta = theta + m
        yield theta
