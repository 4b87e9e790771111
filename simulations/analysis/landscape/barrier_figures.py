"""Barriers between models, as numbers and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from simulations.analysis.landscape.barriers import MEAN, Barriers, collected, mean_model, pairs
from simulations.analysis.landscape.drawing import GAP, WIDTH
from simulations.analysis.landscape.lines import Line, places_on, points_between
from simulations.analysis.landscape.work import Work
from simulations.analysis.result import Result, Value
from simulations.analysis.runs.evaluation import Losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERS = 10
"""The most models whose barriers stand as numbers in the map."""


@dataclass(frozen=True)
class BarriersPart:
    of: str
    models: Mapping[str, Tensor]
    """[P] each, by their names."""
    shares: Sequence[float]
    """The weights of the models in their mean."""
    measures: Sequence[str]
    points: int
    settings: Mapping[str, Value]

    kind: ClassVar[str] = "landscape-barriers"

    def works(self) -> list[Work]:
        places, models = places_on(self.points, 0), list(self.models.values())
        mean = mean_model(models, self.shares)
        return [
            Work(
                points_between(models[pair.first], mean if pair.second is None else models[pair.second], places),
                self.measures,
                True,
            )
            for pair in pairs(len(models))
        ]

    def results(self, found: Sequence[Losses]) -> list[Result]:
        places = places_on(self.points, 0)
        lines = [Line(places, losses) for losses in found]
        of_pairs = {
            pair: {measure: line.barrier(measure) for measure in self.measures}
            for pair, line in zip(pairs(len(self.models)), lines, strict=True)
        }
        barriers = collected(list(self.models), of_pairs)
        rows: list[Sequence[Value]] = [
            (barriers.names[pair.first], MEAN if pair.second is None else barriers.names[pair.second], measure, value)
            for pair, values in of_pairs.items()
            for measure, value in values.items()
        ]
        return [
            Result(
                self.kind,
                f"Barriers between models of {self.of}",
                _findings(barriers, self.measures),
                self.settings,
                ("first", "second", "loss of", "barrier"),
                rows,
                partial(_figure, barriers, self.measures),
                {
                    "models": barriers.names,
                    "barriers": barriers.between,
                    "to the mean model": barriers.to_mean,
                    "mean barrier": {measure: barriers.mean(measure) for measure in self.measures},
                },
                {
                    **{f"{measure} barrier between clients": barriers.mean(measure) for measure in self.measures},
                    **{f"{measure} barrier to their mean": barriers.mean_to_mean(measure) for measure in self.measures},
                },
            )
        ]


def _findings(barriers: Barriers, measures: Sequence[str]) -> list[str]:
    findings: list[str] = []
    for measure in measures:
        mean, to_mean, highest = barriers.mean(measure), barriers.mean_to_mean(measure), barriers.highest(measure)
        if mean is not None and highest is not None:
            first, second, value = highest
            most = f", at most {value:.4g}, between {first} and {second}" if value > 0 else ""
            findings.append(f"{measure} loss: barrier {mean:.4g} on the mean over all pairs{most}")
        if to_mean is not None:
            findings.append(f"{measure} loss: barrier {to_mean:.4g} on the mean between a model and the mean of all")
        unknown = sum(value is None for row in barriers.between[measure] for value in row) // 2
        unknown += sum(value is None for value in barriers.to_mean[measure])
        if unknown:
            findings.append(f"{measure} loss: not finite on the way of {unknown} pairs, which are gaps in the figure")
    return findings


def _figure(barriers: Barriers, measures: Sequence[str]) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(WIDTH, 3.9 * len(measures)), layout="constrained")
    panels = figure.subplots(len(measures), 1, squeeze=False)[:, 0]
    for panel, measure in zip(panels, measures, strict=True):
        _draw_map(panel, barriers, measure)
    return figure


def _draw_map(panel: Axes, barriers: Barriers, measure: str) -> None:
    """A row for each model; the last row is the mean of all."""
    values = np.array([*barriers.between[measure], barriers.to_mean[measure]], dtype=np.float64)  # None becomes NaN
    count = len(barriers.names)
    values[np.arange(count), np.arange(count)] = np.nan
    panel.set_facecolor(GAP)
    top = float(np.nanmax(values)) if not np.isnan(values).all() else 0.0
    drawn = panel.imshow(np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=top or 1.0)
    if count <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                color = "black" if value > 0.55 * top and top else "white"
                panel.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=6, color=color)
    short = [name.removeprefix("client ") for name in barriers.names]
    every = max(1, -(-count // 20))
    panel.set_xticks(range(0, count, every), short[::every])
    panel.set_yticks([*range(0, count, every), count], [*short[::every], "mean"])
    panel.axhline(count - 0.5, color="white", linewidth=2)
    panel.set_xlabel("client's model" if short != barriers.names else "model")
    panel.set_title(f"barrier of the {measure} loss", fontsize=9)
    panel.grid(visible=False)
    panel.figure.colorbar(drawn, ax=panel, label=f"rise of the {measure} loss between two models", shrink=0.85)
