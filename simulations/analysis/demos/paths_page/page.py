"""One HTML file that draws paths over the surfaces for any start, rate and momentum; it opens from disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from fedopt.errors import InvalidExperiment
from fedopt.storage.files import replace_file
from simulations.analysis.demos.paths import NOISE
from simulations.analysis.demos.paths_page.choices import CHOICES, SLIDERS
from simulations.analysis.demos.surfaces import SURFACES, Surface
from simulations.report.assets import asset, embedded, filled

NAME = "paths.html"

REPORT = "simulations.report"
"""Has the colors and the charts."""


def page(chosen: str) -> str:
    """The page; at first it shows the surface of that name."""
    here = __package__
    assert here is not None
    return filled(
        asset(here, "page.html"),
        {
            "style": asset(REPORT, "page.css") + asset(here, "page.css"),
            "data": embedded(page_data(chosen)),
            "computing": "\n".join(asset(here, name) for name in COMPUTING),
            "drawing": "\n".join([asset(REPORT, "charts.js"), *(asset(here, name) for name in DRAWING)]),
        },
    )


COMPUTING = ("surfaces.js", "updates.js", "contours.js")
"""Scripts that know of no document."""

DRAWING = ("map.js", "address.js", "controls.js", "page.js")


def page_data(chosen: str) -> dict[str, object]:
    return {
        "chosen": chosen,
        "noise": NOISE,
        "surfaces": {name: _surface(surface) for name, surface in SURFACES.items()},
        "optimizers": {
            name: {"title": choice.title, "formula": choice.formula, "exact": choice.exact}
            for name, choice in CHOICES.items()
        },
        "sliders": {name: asdict(slider) for name, slider in SLIDERS.items()},
    }


def _surface(surface: Surface) -> dict[str, object]:
    return {
        "about": surface.about,
        "start": surface.start,
        "steps": surface.steps,
        "window": surface.window,
        "minima": surface.minima,
        "lowest": lowest(surface),
        "settings": {name: dict(choice.settings(surface)) for name, choice in CHOICES.items()},
    }


def lowest(surface: Surface) -> float:
    """The least value: that of the lowest of the minima, which are given to the digits of a picture."""
    found = []
    for minimum in surface.minima:
        point = torch.tensor(minimum, dtype=torch.float64)
        for _ in range(
            5
        ):  # Newton's steps, which are exact to the last digit after a few; least squares if H is singular
            point = point - torch.linalg.pinv(surface.hessian(point)) @ surface.gradient(point[None])[0]
        found.append(surface.at(point).item())
    return min(found)


def write_page(chosen: str, folder: Path) -> Path:
    """Writes the page beside the figures, and returns its file. InvalidExperiment if it cannot."""
    file = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(file, page(chosen).encode())
    except OSError as error:
        raise InvalidExperiment(f"--out {folder} cannot be written: {error.strerror}") from error
    return file
