"""A run's loss on lines and planes through its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedopt.vectors.layout import Layout
from simulations.analysis.objective import Objective
from simulations.analysis.result import Result, Value
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """Losses on the way from one model to another, which lie at 0 and 1."""

    places: list[float]
    losses: dict[str, list[float]]
    """By what they are the loss of: training, test."""

    def barrier(self, of: str) -> float:
        """How far the loss between the models rises above the straight line between theirs, at most; 0 if it does
        not (Frankle et al. 2020, arXiv:1912.05671)."""
        losses = dict(zip(self.places, self.losses[of], strict=True))
        above = [
            loss - (1 - place) * losses[0.0] - place * losses[1.0] for place, loss in losses.items() if 0 <= place <= 1
        ]
        return max(0.0, *above)


@dataclass(frozen=True)
class Plane:
    """Losses around a model, on a square grid of two directions whose unit is the model's own length, filter by
    filter."""

    places: list[float]
    """The steps along each direction; the model is at 0."""
    losses: dict[str, list[list[float]]]
    """By whose loss it is, a row for each step of the second direction."""

    def lowest(self, of: str) -> tuple[float, float]:
        """Where on the plane this loss is least: the steps along both directions."""
        losses = torch.tensor(self.losses[of])
        row, column = divmod(int(losses.argmin()), len(self.places))
        return self.places[column], self.places[row]


def on_line(objectives: Mapping[str, Objective], start: Tensor, end: Tensor, points: int, beyond: float) -> Line:
    """The losses at `points` places from start to end, and at some more up to `beyond` on either side."""
    inside = torch.linspace(0, 1, points, dtype=torch.float64)
    step = 1 / (points - 1)
    outside = [step * count for count in range(1, int(beyond / step + 1e-9) + 1)]
    places = [*(-place for place in reversed(outside)), *inside.tolist(), *(1 + place for place in outside)]
    return Line(
        places,
        {name: [one.value(start + place * (end - start)) for place in places] for name, one in objectives.items()},
    )


def on_plane(
    objectives: Mapping[str, Objective], center: Tensor, directions: tuple[Tensor, Tensor], points: int, span: float
) -> Plane:
    """The losses on a grid of points x points, from -span to span along each direction."""
    places = torch.linspace(-span, span, points, dtype=torch.float64).tolist()
    if points % 2:
        places[points // 2] = 0.0
    first, second = directions
    return Plane(
        places,
        {
            name: [[one.value(center + a * first + b * second) for a in places] for b in places]
            for name, one in objectives.items()
        },
    )


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


def shown(of: str, lines: Mapping[str, Line], plane: Plane, settings: Mapping[str, Value]) -> Result:
    """`lines` by what they connect."""
    findings = [
        f"{name}: barrier of the {measure} loss {line.barrier(measure):.4g}"
        for name, line in lines.items()
        for measure in line.losses
    ]
    findings += [
        f"plane: the {name} loss is least at ({place[0]:.2g}, {place[1]:.2g})"
        for name in plane.losses
        for place in [plane.lowest(name)]
    ]
    rows: list[Sequence[Value]] = [
        (name, measure, place, None, loss)
        for name, line in lines.items()
        for measure, losses in line.losses.items()
        for place, loss in zip(line.places, losses, strict=True)
    ]
    rows += [
        ("plane", measure, a, b, loss)
        for measure, losses in plane.losses.items()
        for b, row in zip(plane.places, losses, strict=True)
        for a, loss in zip(plane.places, row, strict=True)
    ]
    return Result(
        "landscape",
        f"Loss landscape of {of}",
        findings,
        settings,
        ("where", "loss of", "place", "second place", "loss"),
        rows,
        partial(_figure, lines, plane),
        {"barriers": {name: {m: line.barrier(m) for m in line.losses} for name, line in lines.items()}},
    )


def _figure(lines: Mapping[str, Line], plane: Plane) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(4.2 * (len(lines) + 1), 3.6), layout="constrained")
    *panels, square = figure.subplots(1, len(lines) + 1, squeeze=False)[0]
    for panel, (name, line) in zip(panels, lines.items(), strict=True):
        for rank, (measure, losses) in enumerate(line.losses.items()):
            panel.plot(line.places, losses, color=COLORS[rank], linestyle=DASHES[rank], label=measure)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("share of the way")
        panel.set_ylabel("loss")
        panel.legend(frameon=False, fontsize=8)
    main, *others = plane.losses
    grid = torch.tensor(plane.losses[main])
    contours = square.contour(plane.places, plane.places, grid, levels=14, cmap="viridis", linewidths=0.9)
    square.clabel(contours, fontsize=6)
    square.plot(0, 0, "k*", markersize=9, label="the model")
    for rank, name in enumerate(others):
        square.plot(
            *plane.lowest(name), color=COLORS[rank], marker="X", markersize=8, linestyle="", label=f"least {name}"
        )
    square.set_title(f"{main} loss around the model", fontsize=9)
    square.set_xlabel("first direction, in lengths of the filters")
    square.set_ylabel("second direction")
    square.legend(fontsize=7, framealpha=0.8)
    square.grid(visible=False)
    return figure
