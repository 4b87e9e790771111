"""FedSpeed after arXiv:2302.10429, Algorithm 1."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def fedspeed(
    problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, lam: float, rho: float, alpha: float,
    ascent: str,
) -> Iterator[Tensor]:  # fmt: skip
    """x after each round."""
    x, p = problem.start, problem.weights()
    ghat = [torch.zeros_like(x) for _ in problem.sizes]
    for round_, cohort in problem.rounds(cohort_size, rounds):
        amended = []
        for i in cohort:

            def gradient(y: Tensor, batch: Tensor, i: int = i, x: Tensor = x) -> Tensor:
                g_1 = problem.gradient(i, y, batch)
                length = rho if ascent == "step" else rho / g_1.norm()
                g_2 = problem.gradient(i, y + length * g_1, batch)
                quasi = (1 - alpha) * g_1 + alpha * g_2
                return quasi - ghat[i] + (y - x) / lam

            x_i = walk(local, x, problem.batches(local, round_, i), gradient)
            ghat[i] = ghat[i] - (x_i - x) / lam
            amended.append(x_i - lam * ghat[i])
        x = p[cohort] @ torch.stack(amended) / p[cohort].sum()
        yield x
