"""Each client alone, and FedAvg whose clients keep their last local model, as plain loops."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def local_training(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int) -> Iterator[list[Tensor]]:
    """The models of all clients after each round; those that are not selected rest."""
    models = [problem.start for _ in problem.sizes]
    for round_, cohort in problem.rounds(cohort_size, rounds):
        for i in cohort:
            models[i] = trained(problem, local, round_, i, models[i])
        yield list(models)


def fine_tuning(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int) -> Iterator[list[Tensor]]:
    """What all clients use after each round: their last local model, or the global one if they have none."""
    x, p = problem.start, problem.weights()
    own: dict[int, Tensor] = {}
    for round_, cohort in problem.rounds(cohort_size, rounds):
        own |= {i: trained(problem, local, round_, i, x) for i in cohort}
        x = sum((p[i] / p[cohort].sum() * own[i] for i in cohort), start=0 * x)
        yield [own.get(i, x) for i in range(len(problem.sizes))]


def trained(problem: Problem, local: LocalSettings, round_: int, i: int, start: Tensor) -> Tensor:
    """The client's model after its local work of this round."""
    return walk(local, start, problem.batches(local, round_, i), lambda y, batch: problem.gradient(i, y, batch))
