"""FedOpt after arXiv:2003.00295, Algorithms 1 and 2, and FedAvgM after arXiv:1909.06335, Section 4.3."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk

Server = Callable[[Tensor, Tensor], Tensor]
"""The next x from x and Delta_t."""


def fedopt(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, server: Server) -> Iterator[Tensor]:
    """x after each round, with the clients weighted by their samples."""
    x, p = problem.start, problem.weights()
    for round_, cohort in problem.rounds(cohort_size, rounds):
        delta = torch.zeros_like(x)
        for i in cohort:
            batches = problem.batches(local, round_, i)
            x_i = walk(local, x, batches, lambda y, batch, i=i: problem.gradient(i, y, batch))  # type: ignore[misc]
            delta += p[i] / p[cohort].sum() * (x_i - x)
        x = server(x, delta)
        yield x


def adaptive(kind: str, eta: float, beta1: float, beta2: float, tau: float) -> Server:
    """Algorithm 2, lines 9 to 13."""
    m: list[Tensor] = []
    v: list[Tensor] = []

    def step(x: Tensor, delta: Tensor) -> Tensor:
        m_before = m[-1] if m else torch.zeros_like(x)
        v_before = v[-1] if v else torch.full_like(x, tau * tau)
        m.append(beta1 * m_before + (1 - beta1) * delta)
        if kind == "adagrad":
            v.append(v_before + delta**2)
        elif kind == "yogi":
            v.append(v_before - (1 - beta2) * delta**2 * torch.sign(v_before - delta**2))
        else:
            v.append(beta2 * v_before + (1 - beta2) * delta**2)
        return x + eta * m[-1] / (torch.sqrt(v[-1]) + tau)

    return step


def momentum(eta: float, beta: float, nesterov: bool) -> Server:
    """FedAvgM: v <- beta v + Delta, w <- w + v, where Hsu et al. write it with the opposite sign."""
    v: list[Tensor] = []

    def step(x: Tensor, delta: Tensor) -> Tensor:
        v.append(beta * v[-1] + delta if v else delta)
        return x + eta * (delta + beta * v[-1] if nesterov else v[-1])

    return step


def of_torch(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> Server:
    """torch's own optimizer, with -Delta as the gradient."""
    made: list[tuple[nn.Parameter, torch.optim.Optimizer]] = []

    def step(x: Tensor, delta: Tensor) -> Tensor:
        if not made:
            point = nn.Parameter(x.clone())
            made.append((point, make([point])))
        point, optimizer = made[0]
        point.grad = -delta
        optimizer.step()
        return point.detach().clone()

    return step
