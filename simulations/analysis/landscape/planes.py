"""Planes through the space of a model's parameters, and losses on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import Layout
from simulations.analysis.runs.evaluation import Losses, PointSet

MARGIN = 0.25
"""How far a window reaches beyond what it must show, as a share of its width."""
FLAT = 1e-9
"""Three models are on one line if the third is nearer to it than this share of the distance between the others."""

ROUNDING = 1e-12
"""What is less than this share of a distance is 0."""


@dataclass(frozen=True)
class Place:
    """Where a model is, seen from a plane: the coordinates of its projection, and how far off the plane it lies."""

    across: float
    up: float
    off: float
    """The Euclidean distance of the parameters from the projection."""


@dataclass(frozen=True)
class Frame:
    """A plane's origin [P] and its two directions [2, P], which need not be orthogonal; float64."""

    origin: Tensor
    directions: Tensor

    def place(self, w: Tensor) -> Place:
        """Of the model w [P], by least squares."""
        away = w - self.origin
        gram = self.directions @ self.directions.T
        found = torch.linalg.solve(gram, self.directions @ away)
        off = float(torch.linalg.vector_norm(away - found @ self.directions))
        distance, lengths = float(torch.linalg.vector_norm(away)), gram.diagonal().sqrt().tolist()
        across, up = (
            0.0 if abs(place) * length < ROUNDING * distance else place
            for place, length in zip(found.tolist(), lengths, strict=True)
        )
        return Place(across, up, 0.0 if off < ROUNDING * distance else off)

    def points(self, across: Sequence[float], up: Sequence[float]) -> PointSet:
        """Of a grid, row after row; a row goes along the first direction."""
        grid = torch.cartesian_prod(
            torch.tensor(up, dtype=torch.float64), torch.tensor(across, dtype=torch.float64)
        ).flip(1)
        return PointSet(self.origin, self.directions, grid)


@dataclass(frozen=True)
class Plane:
    """Losses on a grid."""

    across: list[float]
    """The places along the first direction."""
    up: list[float]
    losses: dict[str, list[list[float]]]
    """By whose loss it is, a row for each place along the second direction."""

    @classmethod
    def of(cls, across: list[float], up: list[float], losses: Losses) -> Plane:
        """From the losses at `Frame.points`."""
        width = len(across)
        rows = {
            name: [values[first : first + width] for first in range(0, len(values), width)]
            for name, values in losses.items()
        }
        return cls(across, up, rows)

    def lowest(self, of: str) -> tuple[float, float] | None:
        """Where on the grid this loss is least, along both directions; of equal places the first, and None where no
        loss is finite."""
        losses = torch.tensor(self.losses[of], dtype=torch.float64)
        losses = torch.where(losses.isfinite(), losses, math.inf)
        row, column = divmod(int(losses.argmin()), len(self.across))
        return (self.across[column], self.up[row]) if math.isfinite(losses[row, column]) else None

    def said_of_place(self, place: tuple[float, float]) -> str:
        """ "(0.2, 1.5)", and whether that is on the edge, so that what is sought may lie beyond."""
        across, up = place
        on_edge = across in (self.across[0], self.across[-1]) or up in (self.up[0], self.up[-1])
        return f"({across:.3g}, {up:.3g})" + (", on the edge" if on_edge else "")

    def gaps(self, of: str) -> int:
        """At how many points this loss is not finite."""
        return sum(not math.isfinite(loss) for row in self.losses[of] for loss in row)


def around(layout: Layout, w: Tensor, source: torch.Generator) -> Frame:
    """Two random filter-normalized directions around the model w; InvalidExperiment if it has too few filters."""
    first, second = (filter_normalized(layout, w, source) for _ in range(2))
    lengths = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    if not lengths - (first @ second).abs() > FLAT * lengths:
        raise InvalidExperiment(
            "--plane random: the model has no matrices and kernels whose filters two directions could have the length "
            "of; give three models, as --plane initial,client:0,final"
        )
    return Frame(w, torch.stack([first, second]))


def filter_normalized(layout: Layout, w: Tensor, source: torch.Generator) -> Tensor:
    """A random direction in which each filter, a row of a matrix or a kernel, has the length of that of w; zero at
    vectors and scalars, as biases (Li et al. 2018, arXiv:1712.09913, section 4)."""
    direction = torch.randn(len(w), generator=source, dtype=w.dtype)
    of_w = layout.split(w)
    for name, drawn in layout.split(direction).items():
        if drawn.ndim < 2:
            drawn.zero_()
            continue
        filters, lengths = drawn.flatten(1), of_w[name].flatten(1).norm(dim=1, keepdim=True)
        filters.mul_(lengths / filters.norm(dim=1, keepdim=True))
    return direction


def through(first: Tensor, second: Tensor, third: Tensor) -> Frame:
    """The plane through three models, with orthonormal directions from the first: to the second, and at a right angle
    towards the third (Garipov et al. 2018, arXiv:1802.10026, section 5). InvalidExperiment if none is there."""
    u, v = second - first, third - first
    length, reach = torch.linalg.vector_norm(u), torch.linalg.vector_norm(v)
    if not length > 0:
        raise InvalidExperiment("--plane: its first two models are the same; give three that differ")
    u = u / length
    for _ in range(2):  # once is not enough in finite precision
        v = v - (u @ v) * u
    height = torch.linalg.vector_norm(v)
    if not height > FLAT * max(length, reach):
        raise InvalidExperiment("--plane: its three models lie on one line; give a third that does not, or use --line")
    return Frame(first, torch.stack([u, v / height]))


def principal(models: Sequence[Tensor]) -> tuple[Frame, tuple[float, float]]:
    """The plane of the first two principal components of the models' distances from the last, and the share of their
    variance along each (Li et al. 2018, section 7). The last is the origin, the first is to the left and not below."""
    away = torch.stack(list(models)) - models[-1]
    _, lengths, directions = torch.linalg.svd(away - away.mean(0), full_matrices=False)
    variances = lengths**2
    total = float(variances.sum())
    if not total > 0:
        raise InvalidExperiment("--trajectory: the run's models are all the same, so that its path has no directions")
    first, second = directions[0], directions[1]
    start = away[0]
    frame = torch.stack([first if start @ first <= 0 else -first, second if start @ second >= 0 else -second])
    return Frame(models[-1], frame), (float(variances[0]) / total, float(variances[1]) / total)


def window(places: Sequence[Place], points: int) -> tuple[list[float], list[float]]:
    """So many places along each direction around those given, with a margin."""
    return (
        _spread([place.across for place in places], points),
        _spread([place.up for place in places], points),
    )


def _spread(numbers: Sequence[float], points: int) -> list[float]:
    low, high = min(numbers), max(numbers)
    margin = MARGIN * (high - low) or 1.0
    places = torch.linspace(low - margin, high + margin, points, dtype=torch.float64).tolist()
    return [0.0 if abs(place) < ROUNDING * (high - low + margin) else place for place in places]
