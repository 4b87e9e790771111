"""FedMuon after arXiv:2509.26337, Algorithm 1, on the matrices of the small network; AdamW under SCAFFOLD's controls
on its biases."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.muon import Muon
from tests.fedopt.algorithms.papers.setting import Problem

SHAPES = ((4, 3), (4,), (3, 4), (3,))
SIZES = [12, 4, 12, 3]


def orthogonalized(m: Tensor, iterations: int) -> Tensor:
    """The polynomial of Newton-Schulz on the singular values of each matrix; zero for vectors. Both matrices are of a
    shape in which the factor of the step is sqrt(max(1, rows / columns))."""
    found = []
    for part, shape in zip(torch.split(m, SIZES), SHAPES, strict=True):
        if len(shape) == 1:
            found.append(torch.zeros_like(part))
            continue
        u, s, vh = torch.linalg.svd(part.view(shape), full_matrices=False)
        s = s / part.norm().clamp(min=1e-7)
        for _ in range(iterations):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        found.append(max(1.0, shape[0] / shape[1]) ** 0.5 * (u * s @ vh).flatten())
    return torch.cat(found)


def fedmuon(
    problem: Problem, local: LocalSettings, cohort: int, rounds: int, server_lr: float = 1.0
) -> Iterator[tuple[Tensor, Tensor]]:
    """X and C after each round."""
    settings = local.optimizer
    assert isinstance(settings, Muon)
    is_matrix = torch.cat([torch.full((size,), len(shape) > 1) for size, shape in zip(SIZES, SHAPES, strict=True)])
    mu, (beta1, beta2), one = settings.momentum, settings.betas, torch.ones((), dtype=torch.float64)
    x, p = problem.start, problem.weights()
    c, own = torch.zeros_like(x), [torch.zeros_like(x) for _ in problem.sizes]
    for round_, clients in problem.rounds(cohort, rounds):
        share, moved, change = p[clients] / p[clients].sum(), torch.zeros_like(x), torch.zeros_like(x)
        for w, i in zip(share, clients, strict=True):
            y, m, raw = x.clone(), own[i].clone(), torch.zeros_like(x)
            a, v = torch.zeros_like(x), torch.zeros_like(x)
            batches = problem.batches(local, round_, i)
            for k, batch in enumerate(batches, start=1):
                g = problem.gradient(i, y, batch)
                raw, m = raw + g / len(batches), mu * m + (1 - mu) * g
                seen = (mu * m + (1 - mu) * g if settings.nesterov else m) - own[i] + c
                h = g - own[i] + c
                a, v = beta1 * a + (1 - beta1) * h, beta2 * v + (1 - beta2) * h * h
                adamw = a / (1 - beta1**k) / ((v / (1 - beta2**k)).sqrt() + settings.eps)
                lr = local.lr * torch.where(is_matrix, one, settings.adamw_rate * one)
                step = torch.where(is_matrix, orthogonalized(seen, settings.newton_schulz), adamw)
                y = y - lr * (step + settings.weight_decay * y)
            new = torch.where(is_matrix, m, raw)
            moved, change = moved + w * (y - x), change + p[i] * (new - own[i])
            own[i] = new
        x, c = x + server_lr * moved, c + change
        yield x, c
