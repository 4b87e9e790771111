"""Barriers of the loss between every two of several models, and between each and their mean."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MEAN = "mean model"


@dataclass(frozen=True)
class Pair:
    """Two models by their numbers; the second is the mean where it is None."""

    first: int
    second: int | None


@dataclass(frozen=True)
class Barriers:
    """`Line.barrier` by loss, training or test."""

    names: list[str]
    """Of the models, in their order."""
    between: dict[str, list[list[float | None]]]
    """A symmetric matrix with zeros on its diagonal; None where a loss on the way is not finite."""
    to_mean: dict[str, list[float | None]]
    """Between each model and the mean of all."""

    def mean(self, of: str) -> float | None:
        """Over the pairs whose barrier is known."""
        rows = self.between[of]
        return _mean([rows[i][j] for i, j in itertools.combinations(range(len(rows)), 2)])

    def mean_to_mean(self, of: str) -> float | None:
        return _mean(self.to_mean[of])

    def highest(self, of: str) -> tuple[str, str, float] | None:
        """The two models with the highest barrier between them, and the barrier."""
        rows = self.between[of]
        known = [(rows[i][j], i, j) for i, j in itertools.combinations(range(len(rows)), 2)]
        found = max(((value, -i, -j) for value, i, j in known if value is not None), default=None)
        return None if found is None else (self.names[-found[1]], self.names[-found[2]], found[0])


def pairs(count: int) -> list[Pair]:
    """Every two of so many models, then each with the mean."""
    return [
        *(Pair(i, j) for i, j in itertools.combinations(range(count), 2)),
        *(Pair(i, None) for i in range(count)),
    ]


def mean_model(models: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The mean weighted by shares, which need not add up to 1."""
    weights = torch.tensor(shares, dtype=torch.float64)
    return (weights / weights.sum()) @ torch.stack(list(models))


def collected(names: list[str], found: dict[Pair, dict[str, float | None]]) -> Barriers:
    """From the barriers of `pairs` by loss."""
    count, measures = len(names), list(next(iter(found.values())))
    between: dict[str, list[list[float | None]]] = {
        measure: [[0.0] * count for _ in range(count)] for measure in measures
    }
    to_mean: dict[str, list[float | None]] = {measure: [0.0] * count for measure in measures}
    for pair, values in found.items():
        for measure, value in values.items():
            if pair.second is None:
                to_mean[measure][pair.first] = value
            else:
                between[measure][pair.first][pair.second] = between[measure][pair.second][pair.first] = value
    return Barriers(names, between, to_mean)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
