"""Runs side by side: which belong together, and what came of each. Studies and reports read the same rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from fedopt.errors import InvalidExperiment
from fedopt.runs.catalog import PARTS, scalars
from fedopt.runs.history import RoundRecord
from fedopt.runs.past_runs import DIVERGED, PastRun, find_runs, read_run
from fedopt.storage.record import Line
from simulations.axes import DATA, NOT_COMPARED, Labelled, by_data, by_partition, by_settings, without_repeats

PLAN = "plan.json"
"""In a study's directory: which runs it is, and what they are called."""

SEARCHED = " (searched)"
"""What the name of a key ends in where its value is one that a search chose."""


class PlannedLabels(Line):
    """One run of a study: its values on the axes, as labels."""

    labels: dict[str, str]
    seed: int
    searched: dict[str, str] = Field(default_factory=dict)
    """What a search chose for it, by key: an outcome, as its accuracy is."""

    @model_validator(mode="before")
    @classmethod
    def _as_it_was(cls, given: Any) -> Any:
        """Plans of before had them among the labels, as "local.lr (searched)"."""
        if isinstance(given, dict) and isinstance(labels := given.get("labels"), dict):
            old = {axis: label for axis, label in labels.items() if axis.endswith(SEARCHED)}
            if old:
                searched = {axis.removesuffix(SEARCHED): label for axis, label in old.items()}
                kept = {axis: label for axis, label in labels.items() if axis not in old}
                return {**given, "labels": kept, "searched": searched}
        return given


class Plan(Line):
    """plan.json."""

    title: str
    about: str
    compare: str
    runs: dict[str, PlannedLabels]


@dataclass(frozen=True)
class Row:
    """One run with its place among the others."""

    name: str
    """Its directory, below the place that was asked about."""
    labels: Mapping[str, str]
    """By axis."""
    seed: int
    run: PastRun
    searched: Mapping[str, str] = field(default_factory=dict)
    """By key, what a search chose for the run; no axis, for runs with other choices are compared."""

    @property
    def status(self) -> str:
        if self.run.failure is not None:
            return "diverged" if self.run.failure.startswith(DIVERGED) else "failed"
        return "finished" if self.run.finished else "unfinished"

    @property
    def accuracy(self) -> float | None:
        """Final test accuracy; None of a run that has not ended."""
        return None if self.run.summary is None else self.run.summary.final.test_accuracy

    @property
    def best_accuracy(self) -> float | None:
        return None if self.run.summary is None else self.run.summary.best.test_accuracy

    @property
    def seconds(self) -> float | None:
        return None if self.run.summary is None else self.run.summary.seconds

    def series(self, measure: str) -> list[tuple[int, float]]:
        """(round, value) wherever the measure is known."""
        values = ((record.round, value_of(record, measure)) for record in self.run.records)
        return [(round_, value) for round_, value in values if value is not None]


@dataclass(frozen=True)
class Group:
    """The runs that differ in their seed alone."""

    labels: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        return ", ".join(told(axis, label) for axis, label in self.labels.items()) or "all runs"

    @property
    def searched(self) -> Mapping[str, str]:
        return self.rows[0].searched

    @property
    def finished(self) -> tuple[Row, ...]:
        """The runs that ended well: those that every figure of a table is of."""
        return tuple(row for row in self.rows if row.status == "finished")

    @property
    def drawn(self) -> tuple[Row, ...]:
        """The runs that curves are of: those that ended well or still go on; all of them if none does."""
        return tuple(row for row in self.rows if row.status in ("finished", "unfinished")) or self.rows

    @property
    def mark(self) -> str:
        """ " (1 of 3 runs)" where figures are not of all runs; "" where they are."""
        ended = len(self.finished)
        return "" if ended == len(self.rows) else f" ({ended} of {len(self.rows)} runs)"

    def spread(self, value: Callable[[Row], float | None]) -> Spread | None:
        """Over those of the finished runs that have a value."""
        values = [found for row in self.finished if (found := value(row)) is not None]
        return Spread.of(values) if values else None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation; one value has none."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, len(values))


@dataclass(frozen=True)
class Results:
    """What a table, a figure or a page is made of."""

    title: str
    about: str
    compare: str
    """The axis to compare by; "" where there is none."""
    rows: tuple[Row, ...]
    complaints: tuple[str, ...] = field(default=())
    """A sentence for whatever could not be read."""

    @property
    def axes(self) -> dict[str, list[str]]:
        """Each axis with its labels, in the order in which they come."""
        axes: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for axis, label in row.labels.items():
                axes.setdefault(axis, {})[label] = None
        return {axis: list(labels) for axis, labels in axes.items()}

    @property
    def searched(self) -> list[str]:
        """The keys that a search chose values for."""
        return list(dict.fromkeys(key for row in self.rows for key in row.searched))

    @property
    def groups(self) -> list[Group]:
        found: dict[tuple[tuple[str, str], ...], list[Row]] = {}
        for row in self.rows:
            found.setdefault(tuple(row.labels.items()), []).append(row)
        return [Group(dict(key), tuple(sorted(rows, key=lambda row: row.seed))) for key, rows in found.items()]


def read_results(places: Sequence[Path]) -> Results:
    """What lies at or below `places`: a study as it was planned, or runs grouped by what they differ in.

    InvalidExperiment where there is no run at all.
    """
    plan = _plan(places[0]) if len(places) == 1 else None
    runs: dict[Path, PastRun] = {}
    complaints: list[str] = []
    for path in find_runs(places):
        try:
            runs[path] = read_run(path)
        except InvalidExperiment as error:
            complaints.append(f"{error}; it is left out")
            continue
        complaints += runs[path].complaints
    if not runs:
        raise InvalidExperiment("\n".join(complaints))
    return _planned(plan, places[0], runs, complaints) if plan is not None else _unplanned(places, runs, complaints)


def value_of(record: RoundRecord, measure: str) -> float | None:
    """The measure of that name, drift.ratio say."""
    part, _, name = measure.rpartition(".")
    holder: object = getattr(record, part) if part in PARTS else record
    value = None if holder is None else getattr(holder, name)
    return value if value is None else float(value)


def axis_title(axis: str) -> str:
    """An axis in a word: "alpha" for data.alpha, "algorithm" for algorithm.name."""
    section, _, key = axis.rpartition(".")
    return section if key == "name" else key


def told(axis: str, label: str) -> str:
    """A value in words: "alpha 0.1" for a number, the label alone for a name."""
    return f"{axis_title(axis)} {label}" if label[:1].isdigit() else label


MEASURES = tuple(scalars())


def _plan(place: Path) -> Plan | None:
    try:
        return Plan.model_validate_json((place / PLAN).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, OSError) as error:
        raise InvalidExperiment(f"{place / PLAN} is torn or was edited") from error


def _planned(plan: Plan, place: Path, runs: Mapping[Path, PastRun], complaints: list[str]) -> Results:
    names = {place / name: name for name in plan.runs if place / name in runs}
    labelled = [
        Labelled(dict(plan.runs[name].labels), plan.runs[name].seed, runs[path]) for path, name in names.items()
    ]
    rows = [
        Row(names[told.run.path], told.labels, told.seed, told.run, plan.runs[names[told.run.path]].searched)
        for told in by_data(labelled, complaints, planned=True)
    ]
    missing = [name for name in plan.runs if place / name not in runs]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        complaints.append(f"{len(missing)} of {len(plan.runs)} runs are not there: {', '.join(missing[:5])}{more}")
    if not rows:
        raise InvalidExperiment(f"{place} holds none of its study's runs")
    results = Results(plan.title or place.resolve().name, plan.about, plan.compare, tuple(rows), tuple(complaints))
    return _with_warning(results)


def _unplanned(places: Sequence[Path], runs: Mapping[Path, PastRun], complaints: list[str]) -> Results:
    labelled = by_data(by_settings(list(runs.values())), complaints)
    labelled = without_repeats(by_partition(labelled, complaints), complaints)
    root = places[0] if len(places) == 1 else None
    rows = [
        Row(
            name=str(path.relative_to(root)) if root is not None and path != root else str(path),
            labels=told.labels,
            seed=told.seed,
            run=told.run,
        )
        for told in labelled
        for path in [told.run.path]
    ]
    title = (root.resolve().name if root is not None else "") or "runs"
    compared = [axis for axis in rows[0].labels if axis not in NOT_COMPARED]
    return _with_warning(Results(title, "", compared[0] if compared else "", tuple(rows), tuple(complaints)))


def _with_warning(results: Results) -> Results:
    if not results.axes.keys() & {DATA, "data.name"}:
        return results
    warning = "the runs are of different data: their accuracies do not compare"
    return replace(results, complaints=(*results.complaints, warning))


def last(values: Iterable[tuple[int, float]]) -> float | None:
    """The last value of a series."""
    *_, (_, value) = [(0, None), *values]
    return value


def mean(values: Iterable[tuple[int, float]]) -> float | None:
    """The mean value of a series."""
    known = [value for _, value in values]
    return statistics.fmean(known) if known else None
