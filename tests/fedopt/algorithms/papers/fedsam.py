"""FedSAM after arXiv:2206.02618, Algorithm 1, and FedLESAM after arXiv:2405.18890, Algorithm 1."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def fedsam(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, rho: float) -> Iterator[Tensor]:
    """x after each round; `local` has the optimizer that SAM wraps."""
    x, p = problem.start, problem.weights()
    for round_, cohort in problem.rounds(cohort_size, rounds):
        found = []
        for i in cohort:

            def gradient(y: Tensor, batch: Tensor, i: int = i) -> Tensor:
                g = problem.gradient(i, y, batch)
                return problem.gradient(i, y + rho * g / g.norm(), batch)

            found.append(walk(local, x, problem.batches(local, round_, i), gradient))
        x = p[cohort] @ torch.stack(found) / p[cohort].sum()
        yield x


def fedlesam(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, rho: float) -> Iterator[Tensor]:
    """x after each round; a client that has received no model before is not perturbed."""
    w, p = problem.start, problem.weights()
    old: dict[int, Tensor] = {}
    for round_, cohort in problem.rounds(cohort_size, rounds):
        found = []
        for i in cohort:
            along = old[i] - w if i in old else torch.zeros_like(w)
            delta = rho * along / along.norm() if along.norm() > 0 else along

            def gradient(y: Tensor, batch: Tensor, i: int = i, delta: Tensor = delta) -> Tensor:
                return problem.gradient(i, y + delta, batch)

            found.append(walk(local, w, problem.batches(local, round_, i), gradient))
            old[i] = w
        w = p[cohort] @ torch.stack(found) / p[cohort].sum()
        yield w
