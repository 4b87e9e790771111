"""FedExP after arXiv:2301.09604, Algorithm 1, with its sums over clients weighted by p_i."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def fedexp(
    problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, epsilon: float, weighting: str
) -> Iterator[tuple[Tensor, float]]:
    """w and the server's step size after each round."""
    w = problem.start
    for round_, cohort in problem.rounds(cohort_size, rounds):
        p = problem.weights(weighting)[cohort]
        updates = []
        for i in cohort:
            batches = problem.batches(local, round_, i)
            w_i = walk(local, w, batches, lambda y, batch, i=i: problem.gradient(i, y, batch))  # type: ignore[misc]
            updates.append(w_i - w)
        deltas = torch.stack(updates)
        mean = p @ deltas / p.sum()
        squares = p @ (deltas * deltas).sum(1) / p.sum()
        eta_g = max(1.0, float(squares / (2 * (mean @ mean + epsilon))))
        w = w + eta_g * mean
        yield w, eta_g
