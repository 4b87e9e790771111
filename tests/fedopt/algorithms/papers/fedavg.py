"""FedAvg after arXiv:1602.05629, Algorithm 1: the server takes the mean of the clients' models."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def fedavg(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, weighting: str) -> Iterator[Tensor]:
    """w after each round."""
    w, n = problem.start, problem.weights(weighting)
    for round_, cohort in problem.rounds(cohort_size, rounds):
        m = n[cohort].sum()
        total = 0 * w
        for k in cohort:
            batches = problem.batches(local, round_, k)
            w_k = walk(local, w, batches, lambda y, batch, k=k: problem.gradient(k, y, batch))  # type: ignore[misc]
            total = total + n[k] / m * w_k
        w = total
        yield w
