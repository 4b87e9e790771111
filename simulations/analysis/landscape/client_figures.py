"""Each client's own loss on a plane: where it is least, and where the client's model is after its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from simulations.analysis.landscape.drawing import WIDTH, draw_contours, grid_of
from simulations.analysis.landscape.planes import Place, Plane
from simulations.analysis.landscape.view import View
from simulations.analysis.landscape.work import or_none, said_of_gaps
from simulations.analysis.result import Result, Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3


def of_clients(view: View, plane: Plane, clients: Mapping[str, Place], settings: Mapping[str, Value]) -> Result:
    """`clients` are their models' places by the names of their losses."""
    findings = list[str]()
    for name, place in clients.items():
        lowest = plane.lowest(name)
        least = "" if lowest is None else f"its own loss is least at {plane.said_of_place(lowest)}; "
        off = f"{place.off:.3g} off" if place.off > 0 else "on"
        findings.append(
            f"{name}: {least}its model after its work is at ({place.across:.3g}, {place.up:.3g}), {off} the plane"
        )
    findings += said_of_gaps("plane", {name: plane.gaps(name) for name in clients}, len(plane.across) * len(plane.up))
    rows: list[Sequence[Value]] = [
        (name, a, b, or_none(loss))
        for name in clients
        for b, row in zip(plane.up, plane.losses[name], strict=True)
        for a, loss in zip(plane.across, row, strict=True)
    ]
    return Result(
        f"{view.name}-clients",
        f"{view.title}: each client's own loss",
        findings,
        settings,
        ("loss of", view.axes[0], view.axes[1], "loss"),
        rows,
        partial(_figure, view, plane, clients),
        {
            "models": {name: [place.across, place.up, place.off] for name, place in clients.items()},
            "least": {name: plane.lowest(name) for name in clients},
        },
    )


def _figure(view: View, plane: Plane, clients: Mapping[str, Place]) -> Figure:
    """A panel for each client, with contours of a scale of its own."""
    from simulations.report.shown import ShownFigure

    columns = min(COLUMNS, len(clients))
    rows = -(-len(clients) // columns)
    figure = ShownFigure(figsize=(WIDTH, 0.9 + WIDTH / columns * 1.12 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for panel, (name, place) in zip(panels, clients.items(), strict=False):
        draw_contours(panel, plane.across, plane.up, grid_of(plane.losses[name]))
        for mark in view.marks.values():
            panel.plot(mark.across, mark.up, "*", color="white", markeredgecolor="black", markersize=10)
        panel.plot(place.across, place.up, "o", color="white", markeredgecolor="black", markersize=4)
        lowest = plane.lowest(name)
        if lowest is not None:
            panel.plot(*lowest, "X", color="white", markeredgecolor="black", markersize=6)
        if view.has_one_unit:
            panel.set_aspect("equal")
        panel.set_title(f"{name}\n{f'{place.off:.2g} off' if place.off > 0 else 'on the plane'}", fontsize=8)
        panel.tick_params(labelsize=6)
    for panel in panels[len(clients) :]:
        panel.set_axis_off()
    figure.supxlabel(view.axes[0], fontsize=8)
    figure.supylabel(view.axes[1], fontsize=8)
    figure.suptitle(
        "★ marked models   ● the client's model after its work   ✖ its least loss\n"
        "off: how far the client's model lies off the plane",
        fontsize=7,
    )
    return figure
