"""Lines between models, as numbers and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from simulations.analysis.landscape.drawing import WIDTH, grid_of, is_logarithmic, said_of
from simulations.analysis.landscape.lines import Line, places_on, points_between
from simulations.analysis.landscape.work import Work, or_none, said_of_gaps
from simulations.analysis.result import Result, Value
from simulations.analysis.runs.evaluation import Losses
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEYOND = 0.25
"""How far a line goes on at both ends, as a share of the way."""


@dataclass(frozen=True)
class Ends:
    """Two models, [P] each, and how they are called."""

    start: Tensor
    end: Tensor
    start_name: str
    end_name: str

    @property
    def name(self) -> str:
        return f"{self.start_name} to {self.end_name}"

    @property
    def distance(self) -> float:
        return float(torch.linalg.vector_norm(self.end - self.start))


@dataclass(frozen=True)
class LinesPart:
    of: str
    ends: Sequence[Ends]
    measures: Sequence[str]
    points: int
    settings: Mapping[str, Value]

    kind: ClassVar[str] = "landscape-lines"

    def works(self) -> list[Work]:
        places = places_on(self.points, BEYOND)
        return [Work(points_between(one.start, one.end, places), self.measures, True) for one in self.ends]

    def results(self, found: Sequence[Losses]) -> list[Result]:
        places = places_on(self.points, BEYOND)
        lines = {one.name: Line(places, losses) for one, losses in zip(self.ends, found, strict=True)}
        distances = {one.name: one.distance for one in self.ends}
        barriers = {name: {measure: line.barrier(measure) for measure in self.measures} for name, line in lines.items()}
        findings = [
            f"{name}: barrier of the {measure} loss {barrier:.4g}"
            for name, of_line in barriers.items()
            for measure, barrier in of_line.items()
            if barrier is not None
        ]
        for name, line in lines.items():
            findings += said_of_gaps(name, {measure: line.gaps(measure) for measure in self.measures}, len(places))
        rows: list[Sequence[Value]] = [
            (name, measure, place, place * distances[name], or_none(loss))
            for name, line in lines.items()
            for measure, losses in line.losses.items()
            for place, loss in zip(line.places, losses, strict=True)
        ]
        return [
            Result(
                self.kind,
                f"Loss between models of {self.of}",
                findings,
                self.settings,
                ("line", "loss of", "share of the way", "distance", "loss"),
                rows,
                partial(_figure, lines, distances),
                {"barriers": barriers, "distances": distances},
                {f"{measure} barrier, {name}": value for name, of in barriers.items() for measure, value in of.items()},
            )
        ]


def _figure(lines: Mapping[str, Line], distances: Mapping[str, float]) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(WIDTH, 2.7 * len(lines)), layout="constrained")
    panels = figure.subplots(len(lines), 1, squeeze=False)[:, 0]
    for panel, (name, line) in zip(panels, lines.items(), strict=True):
        losses = {measure: grid_of([values])[0] for measure, values in line.losses.items()}
        for rank, (measure, values) in enumerate(losses.items()):
            panel.plot(line.places, values, color=COLORS[rank], linestyle=DASHES[rank], label=measure)
        together = grid_of(list(line.losses.values()))
        if is_logarithmic(together):
            panel.set_yscale("log")
        for end in (0, 1):
            panel.axvline(end, color="0.6", linewidth=0.8, zorder=0)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel(f"share of the way, which is {distances[name]:.3g} long")
        panel.set_ylabel(said_of("", together).strip())
        panel.legend(frameon=False, fontsize=8)
    return figure
