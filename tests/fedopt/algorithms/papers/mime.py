"""Mime and MimeLite after arXiv:2008.03606, Algorithm 1, with the paper's table of base algorithms."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem

BETA1, BETA2, EPS = 0.8, 0.95, 0.05


def update(base: str, g: Tensor, m: Tensor, v: Tensor) -> Tensor:
    """U."""
    if base == "momentum":
        return (1 - BETA1) * g + BETA1 * m
    if base == "adam":
        return ((1 - BETA1) * g + BETA1 * m) / (EPS + torch.sqrt(v))
    return g / (EPS + torch.sqrt(v))


def mime(
    problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, base: str, lite: bool
) -> Iterator[Tensor]:
    """x after each round."""
    x, p = problem.start, problem.weights()
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for round_, cohort in problem.rounds(cohort_size, rounds):
        w = {i: float(p[i] / p[cohort].sum()) for i in cohort}
        c = sum((w[i] * problem.gradient(i, x) for i in cohort), 0 * x)
        mean = 0 * x
        for i in cohort:
            y = x
            for batch in problem.batches(local, round_, i):
                g = problem.gradient(i, y, batch)
                if not lite:
                    g = g - problem.gradient(i, x, batch) + c
                y = y - local.lr * update(base, g, m, v)
            mean = mean + w[i] * y
        if base == "adagrad":
            v = v + c**2
        else:
            m, v = (1 - BETA1) * c + BETA1 * m, (1 - BETA2) * c**2 + BETA2 * v
        x = mean
        yield x
