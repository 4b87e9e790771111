"""FedPer after arXiv:1912.00818, Algorithms 1 and 2: base layers are averaged, personalization layers stay."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def fedper(
    problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, base: int
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """(W_B, the models of all clients) after each round; the first `base` entries of a model are its base layers."""
    shared, n = problem.start[:base], problem.weights()
    personal = [problem.start[base:] for _ in problem.sizes]
    for round_, cohort in problem.rounds(cohort_size, rounds):
        total = torch.zeros_like(shared)
        for j in cohort:
            model, batches = torch.cat([shared, personal[j]]), problem.batches(local, round_, j)
            model = walk(local, model, batches, lambda y, batch, j=j: problem.gradient(j, y, batch))  # type: ignore[misc]
            total += n[j] / n[cohort].sum() * model[:base]
            personal[j] = model[base:]
        shared = total
        yield shared, [torch.cat([shared, own]) for own in personal]
