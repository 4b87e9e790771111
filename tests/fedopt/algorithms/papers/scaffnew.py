"""Scaffnew after arXiv:2202.09357, Algorithm 2: a loop over single steps, with one coin a step for all clients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem


def scaffnew(
    problem: Problem, local: LocalSettings, p: float, coins: Iterator[bool], weighting: str
) -> Iterator[Tensor]:
    """x after each communication; `local` says how many samples a batch has."""
    clients, share, gamma = range(len(problem.sizes)), problem.weights(weighting), local.lr
    xs, hs = [problem.start] * len(problem.sizes), [torch.zeros_like(problem.start) for _ in clients]
    round_ = 1
    while True:
        flips = [next(coins)]
        while not flips[-1]:
            flips.append(next(coins))
        batches = [problem.batches(local.model_copy(update={"steps": len(flips)}), round_, i) for i in clients]
        for step, theta in enumerate(flips):
            hats = [xs[i] - gamma * (problem.gradient(i, xs[i], batches[i][step]) - hs[i]) for i in clients]
            mean = sum((share[i] * hats[i] for i in clients), 0 * xs[0])
            new = [mean if theta else hat for hat in hats]
            hs = [hs[i] + p / gamma * (new[i] - hats[i]) for i in clients]
            xs = new
        yield xs[0]
        round_ += 1
