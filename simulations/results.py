"""Runs as rows and groups, for the tables and figures of studies and reports."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from fedopt.errors import InvalidExperiment
from fedopt.runs.catalog import scalars, value_of
from fedopt.runs.past_runs import DIVERGED, PastRun, find_runs, read_run
from fedopt.storage.record import Line
from simulations.axes import DATA, NOT_COMPARED, LabeledRun, by_data, by_partition, by_settings, without_repeats

PLAN = "plan.json"
"""In a study's directory: its runs with their labels."""

LABEL = "run"
"""The axis of runs that the caller has labeled."""

SEARCHED = " (searched)"
"""Ends the header of a column whose values were chosen by a search."""


class PlannedLabels(Line):
    """One run of a study: its values on the axes, as labels."""

    labels: dict[str, str]
    seed: int
    searched: dict[str, str] = Field(default_factory=dict)
    """The values that a search chose, by key. They are results, not axes."""

    @model_validator(mode="before")
    @classmethod
    def _as_it_was(cls, given: Any) -> Any:
        """Reads older plans, which have the searched values among the labels, as "local.lr (searched)"."""
        if isinstance(given, dict) and isinstance(labels := given.get("labels"), dict):
            old = {axis: label for axis, label in labels.items() if axis.endswith(SEARCHED)}
            if old:
                searched = {axis.removesuffix(SEARCHED): label for axis, label in old.items()}
                others = {axis: label for axis, label in labels.items() if axis not in old}
                return {**given, "labels": others, "searched": searched}
        return given


class Plan(Line):
    """plan.json."""

    title: str
    about: str
    compare: str
    runs: dict[str, PlannedLabels]


@dataclass(frozen=True)
class Row:
    """A run with its labels."""

    name: str
    """Its directory, relative to the directory that was read."""
    labels: Mapping[str, str]
    """Its values by axis."""
    seed: int
    run: PastRun
    searched: Mapping[str, str] = field(default_factory=dict)
    """The values that a search chose for the run, by key. Runs are compared although these differ."""

    @property
    def status(self) -> str:
        if self.run.failure is not None:
            return "diverged" if self.run.failure.startswith(DIVERGED) else "failed"
        return "finished" if self.run.finished else "unfinished"

    @property
    def accuracy(self) -> float | None:
        """Final test accuracy; None if the run has not ended."""
        return None if self.run.summary is None else self.run.summary.final.test_accuracy

    @property
    def r2(self) -> float | None:
        """Final R^2 on the test set, where targets are numbers; None if the run has not ended."""
        found = None if self.run.summary is None else self.run.summary.final.regression
        return None if found is None else found.r2

    @property
    def best_accuracy(self) -> float | None:
        return None if self.run.summary is None else self.run.summary.best.test_accuracy

    @property
    def best_score(self) -> float | None:
        """The best accuracy of a round, or R^2 where targets are numbers."""
        return None if self.run.summary is None else self.run.summary.best.score

    @property
    def is_personal(self) -> bool:
        """Whether clients have models of their own."""
        return self.run.experiment.is_personal

    @property
    def clients_accuracy(self) -> float | None:
        """Final accuracy of the models that the clients use: their own, or the global one; None if it is not known."""
        if self.run.summary is None:
            return None
        final = self.run.summary.final
        return final.personal_accuracy if self.is_personal else final.of_clients

    @property
    def seconds(self) -> float | None:
        return None if self.run.summary is None else self.run.summary.seconds

    def series(self, measure: str) -> list[tuple[int, float]]:
        """(round, value) of each round that has the measure."""
        values = ((record.round, value_of(record, measure)) for record in self.run.records)
        return [(round_, value) for round_, value in values if value is not None]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    labels: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        return ", ".join(describe_value(axis, label) for axis, label in self.labels.items()) or "all runs"

    @property
    def searched(self) -> Mapping[str, str]:
        return self.rows[0].searched

    @property
    def finished(self) -> tuple[Row, ...]:
        """The runs that finished. Every figure of a table is over these."""
        return tuple(row for row in self.rows if row.status == "finished")

    @property
    def drawn(self) -> tuple[Row, ...]:
        """The runs that curves are over: those that finished or still run; all runs if there are none of these."""
        return tuple(row for row in self.rows if row.status in ("finished", "unfinished")) or self.rows

    @property
    def mark(self) -> str:
        """ " (1 of 3 runs)" if the figures are not over all runs, else ""."""
        ended = len(self.finished)
        return "" if ended == len(self.rows) else f" ({ended} of {len(self.rows)} runs)"

    def spread(self, value: Callable[[Row], float | None]) -> Spread | None:
        """Mean and deviation over the finished runs that have a value; None if there are none."""
        values = [found for row in self.finished if (found := value(row)) is not None]
        return Spread.of(values) if values else None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation; the deviation of one value is None."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, len(values))


@dataclass(frozen=True)
class Results:
    """The runs that tables, figures and pages are made from."""

    title: str
    about: str
    compare: str
    """The axis to compare by; "" if there is none."""
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = field(default=())
    """A sentence for each problem, such as a file that could not be read."""

    @property
    def are_personal(self) -> bool:
        """Whether clients have models of their own in some runs."""
        return any(row.is_personal for row in self.rows)

    @property
    def have_numbers(self) -> bool:
        """Whether targets are numbers, so that runs are compared by R^2."""
        return any(record.regression is not None for row in self.rows for record in row.run.records)

    @property
    def axes(self) -> dict[str, list[str]]:
        """Each axis with its labels, in the order of the rows."""
        axes: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for axis, label in row.labels.items():
                axes.setdefault(axis, {})[label] = None
        return {axis: list(labels) for axis, labels in axes.items()}

    @property
    def searched(self) -> list[str]:
        """The keys whose values a search chose."""
        return list(dict.fromkeys(key for row in self.rows for key in row.searched))

    @property
    def groups(self) -> list[Group]:
        found: dict[tuple[tuple[str, str], ...], list[Row]] = {}
        for row in self.rows:
            found.setdefault(tuple(row.labels.items()), []).append(row)
        return [Group(dict(key), tuple(sorted(rows, key=lambda row: row.seed))) for key, rows in found.items()]


def read_results(places: Sequence[Path]) -> Results:
    """Reads the runs at or below `places`: a study with its planned labels, or runs labeled by the keys that differ.

    Raises InvalidExperiment if there is no run.
    """
    plan = _plan(places[0]) if len(places) == 1 else None
    runs: dict[Path, PastRun] = {}
    warnings: list[str] = []
    for path in find_runs(places):
        try:
            runs[path] = read_run(path)
        except InvalidExperiment as error:
            warnings.append(f"{error}; it is left out")
            continue
    if not runs:
        raise InvalidExperiment("\n".join(warnings))
    if plan is not None:
        return _planned(plan, places[0], runs, warnings)
    return results_of(list(runs.values()), warnings, places[0] if len(places) == 1 else None)


def axis_title(axis: str) -> str:
    """A short name of the axis: "alpha" for data.alpha, "algorithm" for algorithm.name."""
    section, _, key = axis.rpartition(".")
    return section if key == "name" else key


def describe_value(axis: str, label: str) -> str:
    """A value of an axis: "alpha 0.1" for a number, "nesterov" or "no nesterov", only the label for a name."""
    return f"{axis_title(axis)} {label}" if label[:1].isdigit() else name_value(axis, label)


def name_value(axis: str, label: str) -> str:
    """A value beside others of its axis: the label, and "nesterov" or "no nesterov" for true or false."""
    return {"true": axis_title(axis), "false": f"no {axis_title(axis)}"}.get(label, label)


MEASURES = tuple(scalars())


def _plan(place: Path) -> Plan | None:
    try:
        return Plan.model_validate_json((place / PLAN).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, OSError) as error:
        raise InvalidExperiment(f"{place / PLAN} is torn or was edited") from error


def _planned(plan: Plan, place: Path, runs: Mapping[Path, PastRun], warnings: list[str]) -> Results:
    warnings += [warning for run in runs.values() for warning in run.warnings]
    names = {place / name: name for name in plan.runs if place / name in runs}
    labeled = [
        LabeledRun(dict(plan.runs[name].labels), plan.runs[name].seed, runs[path]) for path, name in names.items()
    ]
    rows = [
        Row(names[one.run.path], one.labels, one.seed, one.run, plan.runs[names[one.run.path]].searched)
        for one in by_data(labeled, warnings, planned=True)
    ]
    missing = [name for name in plan.runs if place / name not in runs]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        warnings.append(f"{len(missing)} of {len(plan.runs)} runs are not there: {', '.join(missing[:5])}{more}")
    if not rows:
        raise InvalidExperiment(f"{place} holds none of its study's runs")
    results = Results(plan.title or place.resolve().name, plan.about, plan.compare, tuple(rows), tuple(warnings))
    return _with_warning(results)


def results_of(runs: Sequence[PastRun], warnings: Sequence[str] = (), root: Path | None = None) -> Results:
    """The runs, labeled by the keys in which they differ. Names of runs are relative to `root`, if there is one."""
    found = [*warnings, *(warning for run in runs for warning in run.warnings)]
    labeled = by_data(by_settings(runs), found)
    labeled = without_repeats(by_partition(labeled, found), found)
    title = (root.resolve().name if root is not None else "") or "runs"
    compared = [axis for axis in labeled[0].labels if axis not in NOT_COMPARED]
    return _with_warning(Results(title, "", compared[0] if compared else "", _rows(labeled, root), tuple(found)))


def results_by_label(runs: Mapping[str, Sequence[PastRun]]) -> Results:
    """The runs with labels of the caller's own. InvalidExperiment if a label's runs differ in more than their seeds, or
    if two labels have the same run."""
    warnings = [warning for own in runs.values() for run in own for warning in run.warnings]
    labeled: list[LabeledRun] = []
    label_of: dict[Path, str] = {}
    for label, own in runs.items():
        apart = [axis for row in by_settings(own)[:1] for axis in row.labels]
        if apart:
            raise InvalidExperiment(
                f"the runs of {label!r} differ in {' and '.join(apart)}; give each setting a label of its own"
            )
        for run in own:
            other = label_of.setdefault(run.path.resolve(), label)
            if other != label:
                raise InvalidExperiment(f"{other!r} and {label!r} are the same run, {run.path}; leave one of them out")
        labeled += [LabeledRun({LABEL: label}, run.experiment.run.seed, run) for run in own]
    warnings += _same_settings(labeled)
    labeled = without_repeats(by_partition(by_data(labeled, warnings), warnings), warnings)
    return _with_warning(Results("runs", "", LABEL, _rows(labeled, None), tuple(warnings)))


def _same_settings(labeled: Sequence[LabeledRun]) -> list[str]:
    """A warning for labels whose runs have the same experiment and seed: only code or data can make them differ."""
    found: dict[tuple[tuple[str, ...], int], dict[str, None]] = {}
    for row, settings in zip(labeled, by_settings([row.run for row in labeled]), strict=True):
        key = (tuple(settings.labels.values()), row.seed)
        found.setdefault(key, {})[row.labels[LABEL]] = None
    same = dict.fromkeys(tuple(labels) for labels in found.values() if len(labels) > 1)
    return [f"{' and '.join(labels)} are the same experiment with the same seed" for labels in same]


def _rows(labeled: Sequence[LabeledRun], root: Path | None) -> tuple[Row, ...]:
    return tuple(
        Row(
            name=str(path.relative_to(root)) if root is not None and path != root else str(path),
            labels=one.labels,
            seed=one.seed,
            run=one.run,
        )
        for one in labeled
        for path in [one.run.path]
    )


def _with_warning(results: Results) -> Results:
    if not results.axes.keys() & {DATA, "data.name"}:
        return results
    warning = "the runs are of different data: their accuracies do not compare"
    return replace(results, warnings=(*results.warnings, warning))


def last(values: Iterable[tuple[int, float]]) -> float | None:
    """The last value of a series."""
    *_, (_, value) = [(0, None), *values]
    return value


def mean(values: Iterable[tuple[int, float]]) -> float | None:
    """The mean value of a series."""
    known = [value for _, value in values]
    return statistics.fmean(known) if known else None
