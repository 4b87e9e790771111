"""A report for notebooks and scripts: the tables as rows, the figures as objects. `fedopt.compare` returns one."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fedopt.errors import InvalidExperiment
from fedopt.registry import nearest
from fedopt.runs.compare import FIGURES, Given
from fedopt.runs.past_runs import PastRun
from fedopt.runs.sheet import Sheet
from fedopt.runs.table import Table, Value, as_text
from simulations.axes import UNKNOWN
from simulations.comparison import (
    GLOBAL,
    MEASURE_COLUMNS,
    OF_CLIENTS,
    OF_NUMBERS,
    Accuracy,
    Pair,
    columns,
    compared_accuracy,
    paired,
    sheet,
)
from simulations.report import page
from simulations.report.figures import draw, makers, save
from simulations.results import (
    SEARCHED,
    Group,
    Results,
    Row,
    Spread,
    mean,
    read_results,
    results_by_label,
    results_of,
)
from simulations.study.tables import entries

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = ("pdf", "svg", "png")

STYLE = """<style>
.fedopt-compare table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0; }
.fedopt-compare th, .fedopt-compare td { padding: 2px 10px; text-align: left; }
.fedopt-compare th.n, .fedopt-compare td.n { text-align: right; }
.fedopt-compare figure { display: inline-block; margin: 4px 12px 4px 0; background: white; }
.fedopt-compare svg { max-width: 100%; height: auto; }
</style>"""


def comparison(given: Given, figures: Sequence[str]) -> InlineReport:
    """What `fedopt.compare` returns."""
    if isinstance(given, Mapping):
        return InlineReport(results_by_label(given), figures)
    if all(isinstance(one, Path) for one in given):
        return InlineReport(read_results(cast(Sequence[Path], given)), figures)
    return InlineReport(results_of(cast(Sequence[PastRun], given)), figures)


class InlineReport:
    """Implements `fedopt.runs.compare.Comparison`."""

    def __init__(self, results: Results, figures: Sequence[str] = FIGURES) -> None:
        if results.are_personal and figures is FIGURES:
            figures = ("clients-accuracy", *FIGURES)
        self._results, self._shown = results, figures
        self._makers = makers(results)
        for name in figures:
            self._check(name)

    @property
    def warnings(self) -> Sequence[str]:
        return self._results.warnings

    @property
    def table(self) -> Table:
        return Table([_row(self._results, group) for group in self._results.groups])

    @property
    def runs(self) -> Table:
        return Table([entries(row) for row in self._results.rows]).without_empty_columns()

    @property
    def pairs(self) -> Table:
        return Table([_difference(pair) for pair in paired(self._results)])

    @cached_property
    def figures(self) -> Sequence[str]:
        return [name for name, maker in self._makers.items() if draw(maker) is not None]

    def figure(self, name: str = "accuracy") -> Figure:
        self._check(name)
        found = draw(self._makers[name])
        if found is None:
            raise InvalidExperiment(f"the runs have no data for the figure {name}; there is {', '.join(self.figures)}")
        return found

    def save(self, file: str | os.PathLike[str], figure: str = "accuracy") -> Path:
        path = Path(file)
        ending = path.suffix.removeprefix(".")
        if ending not in ENDINGS:
            raise InvalidExperiment(f"{path}: a figure's file ends in .pdf, .svg or .png")
        drawn = self.figure(figure)
        try:
            save(drawn, path, ending)
        except OSError as error:
            raise InvalidExperiment(f"{path} cannot be written: {error.strerror}") from error
        return path

    def _check(self, name: str) -> None:
        if name not in self._makers:
            raise InvalidExperiment(f"there is no figure {name!r}; {nearest(name, self._makers)}")

    def to_markdown(self) -> str:
        return self._sheet.markdown

    def to_latex(self) -> str:
        return self._sheet.latex

    @property
    def _sheet(self) -> Sheet:
        """What is printed: the figures that fit in a line."""
        found = sheet(self._results, [column for column in columns(self._results) if column.brief])
        if self._results.axes:
            return found
        (line,), name = found.lines, self._results.rows[0].name  # runs of one setting, which has no label
        return Sheet(["run", *found.titles], [False, *found.is_figure], [[(name, False), *line]])

    def __repr__(self) -> str:
        shown = self._sheet
        lines = [[text for text, _ in line] for line in shown.lines]
        return "\n".join([*(f"note: {warning}" for warning in self.warnings), as_text(shown.titles, lines)])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p><em>note: {html.escape(warning)}</em></p>" for warning in self.warnings)
        tables = page.table(self._results) + page.pairs(self._results)
        drawn = [figure for name in self._shown if (figure := draw(self._makers[name])) is not None]
        figures = "".join(f"<figure>{_svg(figure)}</figure>" for figure in drawn)
        return f'<div class="fedopt-compare">{STYLE}{notes}{tables}<div>{figures}</div></div>'


def _row(results: Results, group: Group) -> dict[str, Value]:
    """The group's figures, over its finished runs; None for what they have not."""
    found: dict[str, Value] = {axis: _number(label) for axis, label in group.labels.items()}
    found |= {f"{key}{SEARCHED}": _number(group.searched.get(key, "-")) for key in results.searched}
    compared = compared_accuracy(results)
    numbers = compared is OF_NUMBERS
    return found | {
        **_accuracy(group, OF_NUMBERS if numbers else GLOBAL),
        **(_accuracy(group, OF_CLIENTS) if compared is OF_CLIENTS else {}),
        "best_r2" if numbers else "best_accuracy": _mean(group.spread(lambda row: row.best_score)),
        **{name: _mean(group.spread(_mean_over_rounds(name))) for name in MEASURE_COLUMNS},
        "seconds": _mean(group.spread(lambda row: row.seconds)),
        "finished": len(group.finished),
        "runs": len(group.rows),
    }


def _accuracy(group: Group, accuracy: Accuracy) -> dict[str, Value]:
    spread = group.spread(accuracy.of)
    return {accuracy.name: _mean(spread), f"{accuracy.name}_std": None if spread is None else spread.deviation}


def _difference(pair: Pair) -> dict[str, Value]:
    found = Spread.of(pair.gains)
    return {
        "where": pair.where,
        "difference": pair.difference,
        "of": pair.accuracy.name,
        "mean": found.mean,
        "std": found.deviation,
        "in_favor": sum(gain > 0 for gain in pair.gains),
        "seeds": found.count,
    }


def _mean_over_rounds(measure: str) -> Callable[[Row], float | None]:
    return lambda row: mean(row.series(measure))


def _mean(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _number(label: str) -> Value:
    """A label as the number that it names, if it names one; None where the run does not have the key."""
    if label == UNKNOWN:
        return None
    try:
        return float(label) if set(label) & {".", "e"} else int(label)
    except ValueError:
        return label


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    save(figure, stream, "svg")
    text = stream.getvalue()
    return text[text.index("<svg") :]
