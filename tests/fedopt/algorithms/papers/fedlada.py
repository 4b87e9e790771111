"""FedLADA after arXiv:2308.00522: AMSGrad from averaged v, amended by the direction of the last round."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.amsgrad import Amsgrad
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem


def fedlada(
    problem: Problem, local: LocalSettings, cohort: int, rounds: int, alpha: float, server_lr: float
) -> Iterator[Tensor]:
    """x after each round."""
    assert isinstance(local.optimizer, Amsgrad)
    (beta1, beta2), eps = local.optimizer.betas, local.optimizer.eps
    x, p = problem.start, problem.weights()
    g_a, v_bar = torch.zeros_like(x), torch.full_like(x, eps**2)
    for round_, clients in problem.rounds(cohort, rounds):
        share = p[clients] / p[clients].sum()
        ys, largest, steps = [], [], []
        for i in clients:
            y, m, v, v_hat = x.clone(), torch.zeros_like(x), v_bar, v_bar
            batches = problem.batches(local, round_, i)
            for batch in batches:
                g = problem.gradient(i, y, batch)
                m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
                v_hat = torch.maximum(v_hat, v)
                y = y - local.lr * (alpha * m / v_hat.sqrt() + (1 - alpha) * g_a)
            ys.append(y)
            largest.append(v_hat)
            steps.append(float(len(batches)))
        x_bar, v_bar = share @ torch.stack(ys), share @ torch.stack(largest)
        g_a = (x - x_bar) / (local.lr * float(share @ torch.tensor(steps, dtype=torch.float64)))
        x = x + server_lr * (x_bar - x)
        yield x
