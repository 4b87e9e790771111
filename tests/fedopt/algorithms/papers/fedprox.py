"""FedProx after arXiv:1812.06127, Algorithm 2: devices minimize h_k(w; w^t) = F_k(w) + mu / 2 |w - w^t|^2."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def fedprox(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, mu: float) -> Iterator[Tensor]:
    """w after each round; the gradient of h_k is that of autograd."""
    w, p = problem.start, problem.weights()
    for round_, cohort in problem.rounds(cohort_size, rounds):
        found = []
        for k in cohort:

            def gradient(y: Tensor, batch: Tensor, k: int = k, w: Tensor = w) -> Tensor:
                point = y.clone().requires_grad_()
                h = problem.loss(k, point, batch) + mu / 2 * (point - w).square().sum()
                return torch.autograd.grad(h, point)[0]

            found.append(walk(local, w, problem.batches(local, round_, k), gradient))
        w = p[cohort] @ torch.stack(found) / p[cohort].sum()
        yield w
