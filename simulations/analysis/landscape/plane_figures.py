"""A plane through the space of parameters, as numbers, contours and surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from simulations.analysis.landscape.client_figures import of_clients
from simulations.analysis.landscape.drawing import WIDTH, draw_contours, draw_surface, grid_of, said_of
from simulations.analysis.landscape.planes import Place, Plane
from simulations.analysis.landscape.view import View
from simulations.analysis.landscape.work import Work, or_none, said_of_gaps
from simulations.analysis.result import Result, Value
from simulations.analysis.runs.evaluation import Losses, PointSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d.axes3d import Axes3D  # type: ignore[import-untyped]

MOST_NAMES = 7
"""The most models of a path whose names are drawn."""


@dataclass(frozen=True)
class PlanePart:
    view: View
    measures: Sequence[str]
    """The losses of the figure: the first is drawn, of the others the lowest places."""
    clients: Mapping[str, Place]
    """The clients' models after their work, by the names of their objectives."""
    is_exact: bool
    """In float64."""
    settings: Mapping[str, Value]

    @property
    def kind(self) -> str:
        return self.view.name

    def works(self) -> list[Work]:
        view, names = self.view, [*self.measures, *self.clients]
        grid = Work(view.frame.points(view.across, view.up), names, self.is_exact)
        return [grid] if self.is_exact else [grid, Work(self._samples(), names, True)]

    def results(self, found: Sequence[Losses]) -> list[Result]:
        plane = Plane.of(self.view.across, self.view.up, found[0])
        settings, facts = dict(self.settings), list(self.view.facts)
        if len(found) > 1:
            error = self._error(found[0], found[1])
            settings["float32_error"] = error
            facts.append(f"computed in float32: at 5 of the points losses differ from float64's by at most {error:.1g}")
        results = [_result(self.view, plane, self.measures, list(self.clients), facts, settings)]
        if self.clients:
            results.append(of_clients(self.view, plane, self.clients, settings))
        return results

    def _places(self) -> list[tuple[int, int]]:
        """Rows and columns of the corners and the middle."""
        rows, columns = (len(self.view.up) - 1, len(self.view.across) - 1)
        return [(0, 0), (0, columns), (rows // 2, columns // 2), (rows, 0), (rows, columns)]

    def _samples(self) -> PointSet:
        view = self.view
        places = [[view.across[column], view.up[row]] for row, column in self._places()]
        return PointSet(view.frame.origin, view.frame.directions, torch.tensor(places, dtype=torch.float64))

    def _error(self, quick: Losses, exact: Losses) -> float:
        """The largest difference at the samples, relative to the loss where that is above 1."""
        width = len(self.view.across)
        return max(
            (
                abs(quick[name][row * width + column] - loss) / max(1.0, abs(loss))
                for name, losses in exact.items()
                for (row, column), loss in zip(self._places(), losses, strict=True)
                if or_none(loss) is not None and or_none(quick[name][row * width + column]) is not None
            ),
            default=0.0,
        )


def _result(
    view: View,
    plane: Plane,
    measures: Sequence[str],
    clients: Sequence[str],
    facts: Sequence[str],
    settings: Mapping[str, Value],
) -> Result:
    findings = [*facts, *_said_of_marks(view)]
    for name in measures:
        found = plane.lowest(name)
        if found is not None:
            findings.append(f"the {name} loss is least at {plane.said_of_place(found)}")
    size = len(plane.across) * len(plane.up)
    findings += said_of_gaps("plane", {name: plane.gaps(name) for name in measures}, size)
    rows: list[Sequence[Value]] = [
        (measure, a, b, or_none(loss))
        for measure in measures
        for b, row in zip(plane.up, plane.losses[measure], strict=True)
        for a, loss in zip(plane.across, row, strict=True)
    ]
    return Result(
        view.name,
        view.title,
        findings,
        settings,
        ("loss of", view.axes[0], view.axes[1], "loss"),
        rows,
        partial(_figure, view, plane, measures, clients),
        {
            "models": {name: [place.across, place.up, place.off] for name, place in view.marks.items()},
            "least": {name: plane.lowest(name) for name in measures},
            **view.numbers,
        },
    )


def _said_of_marks(view: View) -> list[str]:
    """Where the models are that are not on the plane; of a path, how far they are from it."""
    off = {name: place.off for name, place in view.marks.items() if place.off > 0}
    if not off:
        return []
    if view.is_path:
        farthest = max(off, key=lambda name: off[name])
        return [f"the models of the path lie off the plane, {farthest} the farthest, by {off[farthest]:.3g}"]
    return [f"{name} lies {distance:.3g} off the plane" for name, distance in off.items()]


def _figure(view: View, plane: Plane, measures: Sequence[str], clients: Sequence[str]) -> Figure:
    from simulations.report.shown import ShownFigure

    wide, high = plane.across[-1] - plane.across[0], plane.up[-1] - plane.up[0]
    heights = (1.2 + 2.8 * (min(1.0, high / wide) if view.has_one_unit else 1.0), 3.4)
    figure = ShownFigure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=heights)
    main, *others = measures
    losses = grid_of(plane.losses[main])

    panel: Axes = figure.add_subplot(grid[0])
    draw_contours(panel, plane.across, plane.up, losses, said_of(main, losses))
    if view.has_one_unit:
        panel.set_aspect("equal")
    draw_marks(panel, view)
    for name in others:
        found = plane.lowest(name)
        if found is not None:
            _mark(panel, found, "P", f"least {name} loss")
    _mark_clients(panel, plane, clients)
    panel.set_xlabel(view.axes[0])
    panel.set_ylabel(view.axes[1])
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=7, frameon=False)

    surface: Axes3D = figure.add_subplot(grid[1], projection="3d")
    draw_surface(surface, plane.across, plane.up, losses)
    surface.set_xlabel(view.axes[0], fontsize=7)
    surface.set_ylabel(view.axes[1], fontsize=7)
    surface.set_zlabel(said_of(main, losses), fontsize=7)
    surface.tick_params(labelsize=6)
    surface.locator_params(nbins=5)
    return figure


def draw_marks(panel: Axes, view: View, size: float = 11) -> None:
    """The models' projections, with their names."""
    names, places = list(view.marks), list(view.marks.values())
    if view.is_path:
        panel.plot(
            [place.across for place in places],
            [place.up for place in places],
            color="white",
            marker="o",
            markersize=4,
            markeredgecolor="black",
            linewidth=1.2,
            label="models of single rounds",
        )
    every = -(-len(names) // MOST_NAMES) if view.is_path else 1
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        if not view.is_path:
            panel.plot(place.across, place.up, "*", color="white", markeredgecolor="black", markersize=size)
        if number % every == 0 or number == len(names) - 1:
            _name(panel, name, place.across, place.up)


def _mark_clients(panel: Axes, plane: Plane, clients: Sequence[str]) -> None:
    """Where their own losses are least; clients at one point share a mark."""
    at: dict[tuple[float, float], list[str]] = {}
    for name in clients:
        found = plane.lowest(name)
        if found is not None:
            at.setdefault(found, []).append(name.removeprefix("client "))
    for number, (place, names) in enumerate(at.items()):
        _mark(panel, place, "X", "clients' least own losses" if number == 0 else "")
        is_low = place[1] < plane.up[0] + 0.1 * (plane.up[-1] - plane.up[0])
        _name(panel, ", ".join(names), *place, below=not is_low)


def _mark(panel: Axes, place: tuple[float, float], marker: str, label: str) -> None:
    panel.plot(*place, marker, color="white", markeredgecolor="black", markersize=7, label=label, clip_on=False)


def _name(panel: Axes, name: str, across: float, up: float, below: bool = False) -> None:
    from matplotlib.patheffects import withStroke

    panel.annotate(
        name,
        (across, up),
        xytext=(4, -10 if below else 4),
        textcoords="offset points",
        fontsize=7,
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )
