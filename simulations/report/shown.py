"""A matplotlib Figure that a notebook shows as an image. Nothing here imports pyplot, which would show it twice."""

from __future__ import annotations

import io

import matplotlib
from matplotlib.figure import Figure

from simulations.report.style import STYLE

DENSITY = 2
"""Pixels of a notebook's image for each that it takes on the screen."""

SCREEN = 96
"""The screen's pixels per inch."""


class ShownFigure(Figure):
    """Has a `_repr_png_`. Where pyplot's inline backend is loaded, IPython uses that for all Figures instead."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        stream = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(stream, format="png", bbox_inches="tight", dpi=DENSITY * SCREEN)
        data = stream.getvalue()
        width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))  # of the IHDR chunk
        return data, {"width": width // DENSITY, "height": height // DENSITY}
