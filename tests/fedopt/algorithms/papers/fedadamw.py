"""FedAdamW after arXiv:2510.27486: AdamW from averaged block means of v, and alpha G behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fedopt.optimizers.adam import Adam
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem


def fedadamw(
    problem: Problem, local: LocalSettings, cohort: int, rounds: int, alpha: float, blocks: Sequence[int] | None
) -> Iterator[Tensor]:
    """x after each round; `blocks` are the sizes of the parameter tensors, None for v itself in place of its means."""
    assert isinstance(local.optimizer, Adam)
    (beta1, beta2), eps, decay = local.optimizer.betas, local.optimizer.eps, local.optimizer.weight_decay
    x, p = problem.start, problem.weights()
    direction, v_bar, t_bar = torch.zeros_like(x), torch.zeros_like(x), 0.0
    for round_, clients in problem.rounds(cohort, rounds):
        share = p[clients] / p[clients].sum()
        moved, v_mean, t_mean, mean_steps = torch.zeros_like(x), torch.zeros_like(x), 0.0, 0.0
        for w, i in zip(share, clients, strict=True):
            y, m, v, t, k = x.clone(), torch.zeros_like(x), v_bar, t_bar, 0
            for batch in problem.batches(local, round_, i):
                k, t = k + 1, t + 1
                g = problem.gradient(i, y, batch)
                m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
                adaptive = m / (1 - beta1**k) / ((v / (1 - beta2**t)).sqrt() + eps)
                y = y - local.lr * (adaptive + alpha * direction + decay * y)
            if blocks is not None:
                v = torch.cat([block.mean().expand(len(block)) for block in torch.split(v, list(blocks))])
            moved, v_mean = moved + w * (y - x), v_mean + w * v
            t_mean, mean_steps = t_mean + float(w) * t, mean_steps + float(w) * k
        x, v_bar, t_bar = x + moved, v_mean, t_mean
        direction = -moved / (mean_steps * local.lr)
        yield x
