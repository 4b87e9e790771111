"""FedLin after arXiv:2102.07053, Algorithm 1, with minibatches in place of full gradients at y."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def fedlin(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, by_steps: bool) -> Iterator[Tensor]:
    """x after each round."""
    x, p = problem.start, problem.weights()
    for round_, cohort in problem.rounds(cohort_size, rounds):
        w = {i: float(p[i] / p[cohort].sum()) for i in cohort}
        full = sum((w[i] * problem.gradient(i, x) for i in cohort), 0 * x)
        mean = 0 * x
        for i in cohort:
            batches = problem.batches(local, round_, i)
            own = local.model_copy(update={"lr": local.lr / len(batches)}) if by_steps else local

            def corrected(y: Tensor, batch: Tensor, i: int = i, x: Tensor = x, full: Tensor = full) -> Tensor:
                return problem.gradient(i, y, batch) - problem.gradient(i, x) + full

            mean = mean + w[i] * walk(own, x, batches, corrected)
        x = mean
        yield x
