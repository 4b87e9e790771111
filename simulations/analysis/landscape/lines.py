"""Losses on the way from one model to another, and the barrier between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from simulations.analysis.runs.evaluation import PointSet


@dataclass(frozen=True)
class Line:
    """Losses on the way from one model to another, which lie at 0 and 1."""

    places: list[float]
    losses: dict[str, list[float]]
    """By what they are the loss of: training, test."""

    def barrier(self, of: str) -> float | None:
        """How far the loss between the models rises above the straight line between theirs, at most; 0 if it does
        not (Frankle et al. 2020, arXiv:1912.05671). None where a loss between them is not finite."""
        between = [(place, loss) for place, loss in zip(self.places, self.losses[of], strict=True) if 0 <= place <= 1]
        if not all(math.isfinite(loss) for _, loss in between):
            return None
        start, end = between[0][1], between[-1][1]
        return max(0.0, *(loss - (1 - place) * start - place * end for place, loss in between))

    def gaps(self, of: str) -> int:
        """At how many places this loss is not finite."""
        return sum(not math.isfinite(loss) for loss in self.losses[of])


def places_on(points: int, beyond: float) -> list[float]:
    """`points` places from 0 to 1, and as densely some more up to `beyond` on either side."""
    inside = torch.linspace(0, 1, points, dtype=torch.float64)
    step = 1 / (points - 1)
    outside = [step * count for count in range(1, int(beyond / step + 1e-9) + 1)]
    return [*(-place for place in reversed(outside)), *inside.tolist(), *(1 + place for place in outside)]


def points_between(start: Tensor, end: Tensor, places: list[float]) -> PointSet:
    return PointSet(start, (end - start)[None], torch.tensor(places, dtype=torch.float64)[:, None])
