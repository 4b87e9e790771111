"""The planes around the final models of several runs, side by side on one scale: `fedopt analyze landscape` draws each
on its own."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simulations.analysis import FOLDER
from simulations.analysis.landscape.drawing import COLORS, GAP, Grid, grid_of, is_logarithmic, levels_of, round_numbers
from simulations.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = Path(FOLDER) / "landscape-plane.csv"

OF = "training"
"""Whose loss is drawn."""

MOST = 12
"""The most panels."""


@dataclass(frozen=True)
class Plane:
    axes: tuple[str, str]
    across: list[float]
    up: list[float]
    losses: Grid
    """A row for each place along the second axis; NaN where the loss is not finite."""

    @classmethod
    def read(cls, file: Path) -> Plane | None:
        """The plane in a file of `fedopt analyze landscape`; None if there is none, or it is no whole grid."""
        try:
            header, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
            found = {(float(a), float(b)): float(loss or "nan") for of, a, b, loss in rows if of == OF}
        except (OSError, ValueError):
            return None
        across, up = (sorted({place[axis] for place in found}) for axis in (0, 1))
        if len(header) < 3 or len(across) < 2 or len(up) < 2 or len(found) != len(across) * len(up):
            return None
        return cls((header[1], header[2]), across, up, grid_of([[found[a, b] for a in across] for b in up]))


def landscapes(results: Results) -> Figure | None:
    """A panel for each group whose first analyzed run has a plane; None for fewer than two."""
    planes = dict[str, Plane]()
    for group in results.groups:
        found = next((plane for row in group.rows if (plane := Plane.read(row.run.path / FILE)) is not None), None)
        if found is not None:
            planes[group.title] = found
    planes = dict(list(planes.items())[:MOST])
    if len(planes) < 2:
        return None
    return _figure(planes)


def _figure(planes: dict[str, Plane]) -> Figure:
    from matplotlib.colors import LogNorm, Normalize

    from simulations.report.shown import ShownFigure

    every = np.concatenate([plane.losses.ravel() for plane in planes.values()])[None]
    levels, log = levels_of(every), is_logarithmic(every)
    columns = min(len(planes), 4 if len(planes) % 3 else 3)
    rows = -(-len(planes) // columns)
    figure = ShownFigure(figsize=(2.6 * columns, 2.6 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).reshape(-1)
    for panel in panels[len(planes) :]:
        panel.set_visible(False)
    norm = LogNorm(levels[0], levels[-1]) if log else Normalize(levels[0], levels[-1])
    for panel, (title, plane) in zip(panels, planes.items(), strict=False):
        panel.set_facecolor(GAP)
        panel.grid(visible=False)
        drawn = panel.contourf(
            plane.across, plane.up, np.ma.masked_invalid(plane.losses), levels=levels, cmap=COLORS, norm=norm
        )
        drawn.set_edgecolor("face")  # otherwise seams show between the levels
        panel.plot(0, 0, marker="*", color="white", markeredgecolor="black", markersize=9)
        panel.set_title(title, fontsize=9)
    across, up = next(iter(planes.values())).axes
    for place, panel in enumerate(panels[: len(planes)]):
        if place >= len(planes) - columns:
            panel.set_xlabel(across)
            panel.xaxis.set_tick_params(labelbottom=True)
        if place % columns == 0:
            panel.set_ylabel(up)
    label = f"{OF} loss, logarithmic scale" if log else f"{OF} loss"
    bar = figure.colorbar(drawn, ax=list(panels), label=label, location="bottom", aspect=50)
    if log:
        bar.minorticks_off()
        ticks = round_numbers(levels[0], levels[-1])
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    return figure
