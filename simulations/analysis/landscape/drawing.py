"""How losses on a grid are drawn: contours and surface, on a logarithmic scale where their range needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d.axes3d import Axes3D  # type: ignore[import-untyped]

WIDTH = 4.2
"""Inches of a figure: 390 pixels of a telephone's screen show it in its own size."""
RANGE = 20
"""The scale is logarithmic if all losses are positive and the largest is more than so many times the smallest."""
LEVELS = 14
SIDE = 30
"""Most quadrilaterals along a side of the surface, of which an SVG file holds each one."""
GAP = "0.8"
"""The gray of points whose loss is not finite."""
COLORS = "viridis"

Grid = NDArray[np.float64]


def grid_of(losses: Sequence[Sequence[float]]) -> Grid:
    """NaN where the loss is not finite."""
    found = np.array(losses, dtype=np.float64)
    found[~np.isfinite(found)] = np.nan
    return found


def is_logarithmic(losses: Grid) -> bool:
    known = losses[~np.isnan(losses)]
    return bool(known.size) and bool(known.min() > 0) and bool(known.max() > RANGE * known.min())


def said_of(what: str, losses: Grid) -> str:
    """The label of an axis of losses."""
    return f"{what} loss, logarithmic scale" if is_logarithmic(losses) else f"{what} loss"


def draw_contours(
    panel: Axes, across: Sequence[float], up: Sequence[float], losses: Grid, label: str | None = None
) -> None:
    """Filled contours, with a color bar below if there is a label for it. Gaps are gray."""
    from matplotlib.colors import LogNorm

    panel.set_facecolor(GAP)
    panel.set_xlim(across[0], across[-1])
    panel.set_ylim(up[0], up[-1])
    panel.grid(visible=False)
    panel.locator_params(axis="x", nbins=5)  # as many numbers as have room below a narrow panel
    levels = levels_of(losses)
    if not levels:
        return
    log = is_logarithmic(losses)
    norm = LogNorm(levels[0], levels[-1]) if log else None
    drawn = panel.contourf(across, up, np.ma.masked_invalid(losses), levels=levels, cmap=COLORS, norm=norm)
    drawn.set_edgecolor("face")  # otherwise seams show between the levels
    if label is None:
        return
    bar = panel.figure.colorbar(drawn, ax=panel, label=label, location="bottom", aspect=35)
    if log:
        bar.minorticks_off()
        ticks = round_numbers(levels[0], levels[-1])
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])


def draw_surface(panel: Axes3D, across: Sequence[float], up: Sequence[float], losses: Grid) -> None:
    """Over the grid, with a logarithmic height where `is_logarithmic`."""
    log = is_logarithmic(losses)
    heights = np.log10(losses) if log else losses
    every = max(1, math.ceil((max(losses.shape) - 1) / SIDE))
    rows, columns = (sorted({*range(0, size, every), size - 1}) for size in losses.shape)
    x, y = np.meshgrid(np.array(across)[columns], np.array(up)[rows])
    z = heights[np.ix_(rows, columns)]
    known = z[~np.isnan(z)]
    if not known.size:
        return
    panel.plot_surface(
        x, y, z, cmap=COLORS, vmin=known.min(), vmax=known.max(), rstride=1, cstride=1, linewidth=0.1, edgecolor="0.3"
    )
    panel.set_zlim(known.min(), known.max() if known.max() > known.min() else known.min() + 1)
    if log:
        ticks = round_numbers(10.0 ** known.min(), 10.0 ** known.max())
        panel.set_zticks([math.log10(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    panel.view_init(elev=35, azim=-60)


def round_numbers(low: float, high: float, most: int = 7) -> list[float]:
    """1, 2 and 5 times powers of ten from low to high; with more than `most` of them powers alone, every n-th."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    found = [number for number in found if low <= number <= high]
    if len(found) > most:
        found = [number for power in powers if low <= (number := 10.0**power) <= high]
    return found[:: math.ceil(len(found) / most)] if found else []


def levels_of(losses: Grid) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    known = losses[~np.isnan(losses)]
    if not known.size:
        return []
    low, high = float(known.min()), float(known.max())
    if not low < high:
        return [low - 0.5, low + 0.5]
    if not is_logarithmic(losses):
        return [float(level) for level in MaxNLocator(LEVELS).tick_values(low, high)]
    levels = [float(level) for level in np.geomspace(low, high, LEVELS)]
    levels[0], levels[-1] = low, high  # rounding would leave the extremes out
    return levels
