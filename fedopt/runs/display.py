"""A run as text and as HTML: what a notebook shows for a `History`."""

from __future__ import annotations

import html
from collections.abc import Sequence

from fedopt.experiment.experiment import Experiment
from fedopt.runs.catalog import meaning, scalars, value_of
from fedopt.runs.history import Final, History
from fedopt.runs.quality import best_of, quality
from fedopt.runs.sparkline import sparkline
from fedopt.text import count

PERCENT = {
    *("test_accuracy", "personal_accuracy", "clients.mean", "clients.worst"),
    *("classes.worst", "classes.mean_forgetting"),
}
"""Measures that are shown in percent."""

SHOWN = ("test_accuracy", "personal_accuracy", "test_loss", "train_loss", "update_norm", *scalars())
"""The measures with a row, in order."""

TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
CELL = "padding:1px 10px;text-align:"


def history_text(history: History) -> str:
    """One line: the directory, the method, the data, the rounds and the accuracy."""
    return f"History({str(history.directory)!r}: {_headline(history)})"


def history_html(history: History) -> str:
    """A table with a row for each measure: its curve over the rounds, first, last, smallest and largest value."""
    rows = [_row(name, series) for name in SHOWN if (series := _series(history, name))]
    head = "".join(
        f'<th style="{CELL}{side}">{title}</th>'
        for title, side in (
            ("measure", "left"),
            ("over rounds", "left"),
            *((title, "right") for title in ("first", "last", "lowest", "highest")),
        )
    )
    return (
        f"<div><p><b>{html.escape(_headline(history))}</b><br>"
        f"<code>{html.escape(str(history.directory))}</code></p>"
        f'<table style="{TABLE}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def caption(experiment: Experiment) -> str:
    """The algorithm, the data and the seed, for example "fedavg on digits, seed 0"."""
    return f"{experiment.algorithm.name} on {experiment.data.source.title}, seed {experiment.run.seed}"


def _headline(history: History) -> str:
    experiment, summary = history.experiment, history.summary
    rounds = (
        count(summary.rounds, "round") if history.finished else f"{summary.rounds} of {experiment.run.rounds} rounds"
    )
    return (
        f"{caption(experiment)}: {rounds} in {summary.seconds:.1f} s, {quality(summary.final)}, "
        f"at best {best_of(summary.best)} in round {summary.best.round}{of_own_models(summary.final)}"
    )


def of_own_models(final: Final) -> str:
    """The end of a sentence about the clients' own models; empty where they have none."""
    accuracy = final.personal_accuracy
    return "" if accuracy is None else f"; the clients' own models {accuracy:.2%}"


def _series(history: History, name: str) -> list[tuple[int, float]]:
    values = ((record.round, value_of(record, name)) for record in history.records)
    return [(round_, value) for round_, value in values if value is not None]


def _row(name: str, series: Sequence[tuple[int, float]]) -> str:
    values = [value for _, value in series]
    figures = "".join(
        f'<td style="{CELL}right">{_number(name, value)}</td>'
        for value in (values[0], values[-1], min(values), max(values))
    )
    about = html.escape(meaning(name), quote=True)
    return (
        f'<tr><td style="{CELL}left" title="{about}">{html.escape(name)}</td>'
        f'<td style="{CELL}left">{sparkline(series)}</td>{figures}</tr>'
    )


def _number(name: str, value: float) -> str:
    return f"{value:.2%}" if name in PERCENT else f"{value:.4g}"
