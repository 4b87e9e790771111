"""Comparing groups of runs: the columns of a table, who does best, and paired differences seed by seed.

Tables in the terminal, in summary.md and on a report's page are made of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from simulations.results import Group, Results, Row, Spread, mean, told

SHOWN_MEASURES = {"drift.ratio": "drift ratio", "drift.cosine": "cosine", "gradients.zeta2": "ζ²"}
"""Measures with a column: means over the rounds."""


@dataclass(frozen=True)
class Column:
    """One figure of each group."""

    title: str
    told: Callable[[Group], str]
    brief: bool = True
    """Whether it has a place in a terminal of 80 characters."""


def columns(results: Results) -> list[Column]:
    """Final accuracy first."""
    target = next((row.run.experiment.run.target_accuracy for row in results.rows), None)
    return [
        Column("final accuracy, %", lambda group: percent(group.spread(lambda row: row.accuracy))),
        Column("best, %", lambda group: percent(group.spread(lambda row: row.best_accuracy))),
        *([Column(f"rounds to {target:.0%}", rounds_to_target)] if target else []),
        *(Column(title, _mean_of(name), name == "drift.ratio") for name, title in SHOWN_MEASURES.items()),
        Column("s a run", lambda group: number(group.spread(lambda row: row.seconds), digits=1)),
    ]


def is_winner(results: Results) -> Callable[[Group], bool]:
    """Which groups have the highest mean accuracy among those that differ on the compared axis alone."""
    best: list[Mapping[str, str]] = []
    for _, groups in contexts(results):
        scored = [(spread.mean, group) for group in groups if (spread := group.spread(lambda row: row.accuracy))]
        if len(scored) > 1:
            best.append(max(scored, key=lambda pair: pair[0])[1].labels)
    return lambda group: group.labels in best


def contexts(results: Results) -> list[tuple[dict[str, str], list[Group]]]:
    """Groups by all labels but that of the compared axis."""
    found: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in results.groups:
        rest = tuple((axis, label) for axis, label in group.labels.items() if axis != results.compare)
        found.setdefault(rest, []).append(group)
    return [(dict(rest), groups) for rest, groups in found.items()]


class Pair:
    """One comparison over the seeds that both have finished."""

    def __init__(self, where: Mapping[str, str], first: Group, other: Group, compare: str) -> None:
        self.where = ", ".join(told(axis, label) for axis, label in where.items())
        self.difference = f"{other.labels[compare]} - {first.labels[compare]}"
        before = {row.seed: row.accuracy for row in first.rows}
        self.gains = [
            100 * (row.accuracy - reference)
            for row in other.rows
            if row.accuracy is not None and (reference := before.get(row.seed)) is not None
        ]
        """In points of accuracy."""

    @property
    def spread(self) -> str:
        found = Spread.of(self.gains)
        return f"{found.mean:+.2f} ± {found.deviation:.2f}"

    @property
    def each(self) -> str:
        return ", ".join(f"{gain:+.2f}" for gain in self.gains)

    @property
    def in_favour(self) -> str:
        return f"{sum(gain > 0 for gain in self.gains)} of {len(self.gains)}"


def paired(results: Results) -> Iterator[Pair]:
    """Every group against the first of its comparison, seed by seed."""
    for where, groups in contexts(results):
        first, *others = groups
        for other in others:
            pair = Pair(where, first, other, results.compare)
            if pair.gains:
                yield pair


def percent(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{100 * spread.mean:.2f}" + (f" ± {100 * spread.deviation:.2f}" if spread.count > 1 else "")


def number(spread: Spread | None, digits: int | None = None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.{digits}f}" if digits is not None else f"{spread.mean:.3g}"


def rounds_to_target(group: Group) -> str:
    """The rounds of each seed."""
    reached = [row.run.summary.rounds_to_target for row in group.rows if row.run.summary is not None]
    return ", ".join("never" if rounds is None else str(rounds) for rounds in reached) or "-"


def not_finished(group: Group) -> str:
    """How many of the group's runs did not end well; "" if all did."""
    lost = [row for row in group.rows if row.status != "finished"]
    return f" ({len(lost)} of {len(group.rows)} {lost[0].status})" if lost else ""


def _mean_of(measure: str) -> Callable[[Group], str]:
    def mean_of(row: Row) -> float | None:
        return mean(row.series(measure))

    return lambda group: number(group.spread(mean_of))
