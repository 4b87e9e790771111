"""Curves of runs, plotted with characters in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotext
from rich.text import Text

from fedopt.runs.quality import quality
from simulations.results import Results, Row

DEFAULT = ("test_accuracy", "train_loss", "drift.ratio", "gradients.zeta2")
MOST_RUNS = 6
"""The most runs in a plot: those that wrote last."""

SMALLEST = (30, 8)
"""The smallest readable plot, in columns and lines."""


def screen(results: Results, measures: Sequence[str], width: int, height: int) -> Text:
    """A line about the runs' progress and a plot of each measure, in two columns if they fit."""
    rows = _latest(results)
    beside = 2 if len(measures) > 1 and width >= 2 * 50 else 1
    lines = math.ceil(len(measures) / beside)
    size = (max(SMALLEST[0], width // beside - 1), max(SMALLEST[1], (height - 3) // lines))
    plots = [_plot(rows, measure, size) for measure in measures]
    text = Text(f"{_status(results)}\n", no_wrap=True)
    for start in range(0, len(plots), beside):
        for parts in zip(*(plot.splitlines() for plot in plots[start : start + beside]), strict=False):
            text.append_text(Text.from_ansi(" ".join(parts)))
            text.append("\n")
    return text


def _latest(results: Results) -> list[Row]:
    def written(row: Row) -> float:
        file = row.run.path / "metrics.jsonl"
        return file.stat().st_mtime if file.exists() else 0.0

    return sorted(sorted(results.rows, key=written)[-MOST_RUNS:], key=lambda row: row.name)


def _status(results: Results) -> str:
    ended = sum(row.status == "finished" for row in results.rows)
    if len(results.rows) > 1:
        latest = f"; plotted are the last {MOST_RUNS} to write" if len(results.rows) > MOST_RUNS else ""
        return f"{results.title}: {ended} of {len(results.rows)} runs have ended{latest}"
    (row,) = results.rows
    records, rounds = row.run.records, row.run.experiment.run.rounds
    if not records:
        return f"{row.run.path}: no round is done yet"
    found = next((words for record in reversed(records) if (words := quality(record))), "")
    score = f", {found.removeprefix('test ')}" if found else ""
    recent = records[-20:]
    left = sum(record.seconds for record in recent) / len(recent) * (rounds - records[-1].round)
    how = "ended" if row.run.finished else f"about {left:.0f} s left"
    return f"{row.run.path}: round {records[-1].round} of {rounds}{score}; {how}"


def _plot(rows: Sequence[Row], measure: str, size: tuple[int, int]) -> str:
    plotext.clear_figure()
    plotext.plotsize(*size)
    plotext.theme("clear")
    plotext.title(measure)
    colors = ("blue", "orange", "green", "red", "magenta", "cyan")
    for color, row in zip(colors, rows, strict=False):
        series = row.series(measure)
        if series:
            label = row.name if len(rows) > 1 else None
            plotext.plot(*zip(*series, strict=True), label=label, marker="braille", color=color)
    plot: str = plotext.build()
    return plot
