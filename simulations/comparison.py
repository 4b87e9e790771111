"""Compares groups of runs: the columns of a table, the best group, and paired differences seed by seed.

The tables in the terminal, in summary.md and on a report's page are made from these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedopt.runs.sheet import Cell, Sheet
from simulations.results import SEARCHED, Group, Results, Row, Spread, axis_title, describe_value, mean, name_value

MEASURE_COLUMNS = {"drift.ratio": "drift ratio", "drift.cosine": "cosine", "gradients.zeta2": "ζ²"}
"""Measures that have a column, as means over the rounds, with its title."""


@dataclass(frozen=True)
class Column:
    """One figure of each group."""

    title: str
    text: Callable[[Group], str]
    """The figure as the table shows it."""
    brief: bool = True
    """Whether the table in the terminal has this column."""
    of: Callable[[Row], float | None] | None = None
    """What the best of each comparison is highest in; None for a figure that is not marked."""


@dataclass(frozen=True)
class Accuracy:
    """What runs are compared by: accuracy, or R^2 where targets are numbers."""

    name: str
    """The column of `fedopt.compare`'s tables that has it."""
    title: str
    of: Callable[[Row], float | None]
    scale: float = 100
    """Accuracies are shown in percent, and their differences in points."""

    @property
    def unit(self) -> str:
        """Ends the header of a column."""
        return ", %" if self.scale == 100 else ""

    def text(self, spread: Spread | None) -> str:
        return percent(spread) if self.scale == 100 else number(spread, digits=4)


GLOBAL = Accuracy("test_accuracy", "final accuracy", lambda row: row.accuracy)

OF_NUMBERS = Accuracy("test_r2", "final R²", lambda row: row.r2, scale=1)

OF_CLIENTS = Accuracy("clients_accuracy", "final accuracy of the clients' models", lambda row: row.clients_accuracy)
"""That of the models that the clients use themselves: their own, or the global one."""


def compared_accuracy(results: Results) -> Accuracy:
    """The clients' models decide as soon as one algorithm is personal: its global model may not even be trained."""
    if results.have_numbers:
        return OF_NUMBERS
    return OF_CLIENTS if results.are_personal else GLOBAL


def headers(results: Results) -> list[str]:
    """Headers of the columns that identify a group: the axes, and the keys that a search chose."""
    return [axis_title(axis) for axis in results.axes] + [f"{axis_title(key)}{SEARCHED}" for key in results.searched]


def labels(results: Results, group: Group) -> list[str]:
    """The group's entries in these columns."""
    return [*group.labels.values(), *(group.searched.get(key, "-") for key in results.searched)]


def columns(results: Results) -> list[Column]:
    """The columns, the compared accuracy first and marked if it is not over all runs. All are over the same runs.

    Beside personal algorithms, what is of the global model says so: best accuracy and rounds to a target, too.
    """
    compared = compared_accuracy(results)
    personal = compared is OF_CLIENTS
    targets = dict.fromkeys(row.run.experiment.run.target_accuracy for row in results.rows)
    of_global = " (global)" if personal else ""
    return [
        Column(
            "clients' models, %" if personal else f"{compared.title}{compared.unit}",
            lambda group: compared.text(group.spread(compared.of)) + group.mark,
            of=compared.of,
        ),
        *(
            [Column("global model, %", lambda group: percent(group.spread(GLOBAL.of)), of=GLOBAL.of)]
            if personal
            else []
        ),
        Column(
            f"best{of_global}{compared.unit}",
            lambda group: compared.text(group.spread(lambda row: row.best_score)),
        ),
        *(
            Column(f"rounds to {100 * target:g}%{of_global}", _rounds_to(target))
            for target in targets
            if target is not None
        ),
        *(Column(title, _mean_of(name), name == "drift.ratio") for name, title in MEASURE_COLUMNS.items()),
        Column("seconds per run", lambda group: number(group.spread(lambda row: row.seconds), digits=1)),
    ]


def is_winner(results: Results, of: Callable[[Row], float | None]) -> Callable[[Group], bool]:
    """Whether a group has the highest mean of a figure among those that differ only on the compared axis.

    A group with unfinished runs cannot win, because the runs that finished may be the better ones.
    """
    best: list[Mapping[str, str]] = []
    for _, groups in contexts(results):
        whole = [group for group in groups if not group.mark]
        scored = [(spread.mean, group) for group in whole if (spread := group.spread(of))]
        if len(scored) > 1:
            best.append(max(scored, key=lambda pair: pair[0])[1].labels)
    return lambda group: group.labels in best


def marked(results: Results, figures: Sequence[Column]) -> Callable[[Group], list[tuple[str, bool]]]:
    """The group's figures, each with whether it is the best of its comparison."""
    wins = [(lambda group: False) if column.of is None else is_winner(results, column.of) for column in figures]
    return lambda group: [(column.text(group), is_best(group)) for column, is_best in zip(figures, wins, strict=True)]


def sheet(results: Results, shown: Sequence[Column]) -> Sheet:
    """A line for each group: what identifies it, and its figures, the best of each comparison in bold."""
    names, figures_of = headers(results), marked(results, shown)
    lines: list[list[Cell]] = [
        [*((label, False) for label in labels(results, group)), *figures_of(group)] for group in results.groups
    ]
    titles = [*names, *(column.title for column in shown)]
    return Sheet(titles, [False] * len(names) + [True] * len(shown), lines)


def contexts(results: Results) -> list[tuple[dict[str, str], list[Group]]]:
    """The groups that differ only on the compared axis, with the labels that they share."""
    found: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in results.groups:
        rest = tuple((axis, label) for axis, label in group.labels.items() if axis != results.compare)
        found.setdefault(rest, []).append(group)
    return [(dict(rest), groups) for rest, groups in found.items()]


class Pair:
    """A comparison of two groups over the seeds for which both have a finished run."""

    def __init__(self, where: Mapping[str, str], first: Group, other: Group, compare: str, accuracy: Accuracy) -> None:
        self.accuracy = accuracy
        """Whose differences these are."""
        self.where = ", ".join(describe_value(axis, label) for axis, label in where.items())
        self.difference = " - ".join(name_value(compare, group.labels[compare]) for group in (other, first))
        before = {row.seed: accuracy.of(row) for row in first.finished}
        self.gains = [
            accuracy.scale * (reached - reference)
            for row in other.finished
            if (reached := accuracy.of(row)) is not None and (reference := before.get(row.seed)) is not None
        ]
        """Differences in percentage points of accuracy, or in R^2, by seed."""
        self._seeds = len({row.seed for group in (first, other) for row in group.rows})

    @property
    def spread(self) -> str:
        found = Spread.of(self.gains)
        digits = 2 if self.accuracy.scale == 100 else 4
        deviation = "" if found.deviation is None else f" ± {found.deviation:.{digits}f}"
        mark = "" if found.count == self._seeds else f" ({found.count} of {self._seeds} seeds)"
        return f"{found.mean:+.{digits}f}{deviation}{mark}"

    @property
    def each(self) -> str:
        return ", ".join(f"{gain:+.{2 if self.accuracy.scale == 100 else 4}f}" for gain in self.gains)

    @property
    def in_favor(self) -> str:
        return f"{sum(gain > 0 for gain in self.gains)} of {len(self.gains)}"


def paired(results: Results) -> Iterator[Pair]:
    """Compares every group with the first of its context, seed by seed."""
    for where, groups in contexts(results):
        first, *others = groups
        for other in others:
            pair = Pair(where, first, other, results.compare, compared_accuracy(results))
            if pair.gains:
                yield pair


def percent(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{100 * spread.mean:.2f}" + ("" if spread.deviation is None else f" ± {100 * spread.deviation:.2f}")


def number(spread: Spread | None, digits: int | None = None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.{digits}f}" if digits is not None else f"{spread.mean:.3g}"


def _rounds_to(target: float) -> Callable[[Group], str]:
    """The rounds that each finished run took to this target, where it was the run's own."""

    def rounds_to(group: Group) -> str:
        own = [row for row in group.finished if row.run.experiment.run.target_accuracy == target]
        reached = [row.run.summary.rounds_to_target for row in own if row.run.summary is not None]
        return ", ".join("never" if rounds is None else str(rounds) for rounds in reached) or "-"

    return rounds_to


def not_finished(group: Group) -> str:
    """How many of the group's runs did not finish, by status; "" if all did."""
    lost = [row.status for row in group.rows if row.status != "finished"]
    counts = [f"{lost.count(status)} of {len(group.rows)} {status}" for status in dict.fromkeys(lost)]
    return f" ({', '.join(counts)})" if lost else ""


def _mean_of(measure: str) -> Callable[[Group], str]:
    def mean_of(row: Row) -> float | None:
        return mean(row.series(measure))

    return lambda group: number(group.spread(mean_of))
