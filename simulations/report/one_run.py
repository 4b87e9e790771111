"""The figure of one run: accuracy, loss and drift over its rounds. `History.plot` returns it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedopt.errors import InvalidExperiment
from fedopt.runs.catalog import value_of
from fedopt.runs.history import History
from simulations.report.curves import over_seeds
from simulations.report.figures import LOGARITHMIC, draw, markers, save
from simulations.report.inline import ENDINGS
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS: Mapping[str, Mapping[str, str]] = {
    "accuracy, %": {"test_accuracy": "test", "personal_accuracy": "clients' own models"},
    "R²": {"regression.r2": "test"},
    "loss": {"test_loss": "test", "train_loss": "training"},
    "drift ratio": {"drift.ratio": "drift ratio"},
}
"""The panels by their label, each with its measures and their names in the legend."""


def plot(history: History, path: Path | None) -> Figure:
    """The figure, which is also written to `path`, if one is given."""
    if path is not None and path.suffix.removeprefix(".") not in ENDINGS:
        raise InvalidExperiment(f"{path}: a figure's file ends in .pdf, .svg or .png")
    figure = draw(lambda: _figure(history))
    assert figure is not None
    if path is not None:
        try:
            save(figure, path, path.suffix.removeprefix("."))
        except OSError as error:
            raise InvalidExperiment(f"{path} cannot be written: {error.strerror}") from error
    return figure


def _figure(history: History) -> Figure:
    from matplotlib.ticker import MaxNLocator

    from simulations.report.shown import ShownFigure

    panels = {label: curves for label, measures in PANELS.items() if (curves := _curves(history, measures))}
    figure = ShownFigure(figsize=(3.2 * len(panels), 2.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (label, curves) in zip(axes, panels.items(), strict=True):
        scale = 100 if label.endswith("%") else 1
        for rank, (measure, (name, series)) in enumerate(curves.items()):
            rounds, values = zip(*series, strict=True)
            panel.plot(
                rounds,
                [scale * value for value in values],
                color=COLORS[rank],
                linestyle=DASHES[rank],
                label=name,
                **markers(over_seeds([series])),
            )
            if measure in LOGARITHMIC and min(values) > 0:
                panel.set_yscale("log")
        if len(curves) > 1:
            panel.legend(frameon=False)
        panel.set_ylabel(label)
        panel.set_xlabel("round")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _curves(history: History, measures: Mapping[str, str]) -> dict[str, tuple[str, list[tuple[int, float]]]]:
    """The measures that the run has, each with its name and its values by round."""
    found: dict[str, tuple[str, list[tuple[int, float]]]] = {}
    for measure, name in measures.items():
        values = ((record.round, value_of(record, measure)) for record in history.records)
        series = [(round_, value) for round_, value in values if value is not None]
        if series:
            found[measure] = name, series
    return found
