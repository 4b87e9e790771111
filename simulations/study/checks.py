"""Checks a study before anything is run: each run has the settings that its label names, and no two runs are the same
experiment.

In each run a key has one source: an axis, an adjustment, the search, or the seeds. `[base]` holds what all runs share.
A source may replace a key of `[base]` in some runs but not in all: then no run would have the value of `[base]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fedopt.composite import Composite
from fedopt.errors import InvalidExperiment
from fedopt.experiment.changes import INSTEAD_OF
from fedopt.experiment.experiment import Experiment
from fedopt.registry import nearest
from simulations.study.file import SEED, Study
from simulations.study.plan import Combination, PlannedRun, applies, combinations, matches, planned_runs, search_runs

OF_DEPLOYMENT = {"run.over_select", "run.deadline", "run.patience"}
"""Keys that only deployments read. A study's clients are virtual."""

VALIDATION = "data.validation"


@dataclass(frozen=True)
class Checked:
    """A study that has passed all checks."""

    combinations: list[Combination]
    searches: list[list[PlannedRun]]
    """The search runs of each combination; empty without a search."""
    runs: list[PlannedRun]
    """The study's runs; with a search, without the values that it will choose."""

    @property
    def first(self) -> list[PlannedRun]:
        """The runs that depend on no others: those of the search or, without one, all."""
        return [run for runs in self.searches for run in runs] if self.searches else self.runs

    @property
    def notes(self) -> list[str]:
        """The notes that `fedopt run` would print about the experiments, each once, with the runs that it concerns."""
        runs = self.first
        found: dict[str, list[str]] = {}
        for run in runs:
            for note in run.experiment.notes():
                found.setdefault(note, []).append(run.name)
        return [
            note if len(names) == len(runs) else f"{note} ({_some(names)})" for note, names in found.items()
        ] + self._alone()

    def _alone(self) -> list[str]:
        if len(self.combinations) > 1:
            return []
        labels = ", ".join(self.combinations[0].labels.values()) or "one experiment"
        return [f"{labels} alone is run; a [grid] with more values would compare them"]


def checked(study: Study) -> Checked:
    """The study's combinations and runs. Raises InvalidExperiment for a study that contradicts itself."""
    points = combinations(study)
    _check_adjustments(study, points)
    for point in points:
        _check_sources(study, point)
    _check_base(study, points)
    searches = [search_runs(study, study.search, point) for point in points] if study.search else []
    found = Checked(points, searches, planned_runs(study, points))
    # Runs that still lack the values of a search may look the same, so the search's own runs are compared instead.
    one_seed = [run for run in found.first if searches or run.seed == study.seed_list[0]]
    _check_apart(one_seed)
    return found


def _check_adjustments(study: Study, points: Sequence[Combination]) -> None:
    for adjustment in study.adjust:
        for axis, value in adjustment.when.items():
            choices = [point.choices[axis] for point in points]
            if not any(matches(choice, axis, value) for choice in choices):
                labels = dict.fromkeys(choice.table or choice.label for choice in choices)
                raise InvalidExperiment(
                    f"adjust: when: the axis {axis} has no value {value!r}; {nearest(str(value), labels)}"
                )


def _sources(study: Study, point: Combination) -> Iterator[tuple[str, str]]:
    """(key, what sets it in the runs of this combination), without [base]."""
    yield SEED, "seeds"
    for axis, choice in point.choices.items():
        for key in choice.changes:
            yield key, f"the axis {axis}" if key == axis else f"the value {choice.label} of the axis {axis}"
    for number, adjustment in enumerate(study.adjust, 1):
        if applies(adjustment, point):
            for key in adjustment.set:
                yield key, f"[[adjust]] number {number}"
    if study.search is not None:
        for key in study.search.grid:
            yield key, "[search]"
        yield VALIDATION, "[search] itself"


def _check_sources(study: Study, point: Combination) -> None:
    """Raises InvalidExperiment if two sources set the same key, or two keys of which an experiment has one."""
    by_key: dict[str, tuple[str, str]] = {}
    for key, source in _sources(study, point):
        other, before = by_key.setdefault(_one_of_two(key), (key, source))
        if (other, before) == (key, source):
            continue
        if SEED in (key, other):
            raise InvalidExperiment(
                f"{SEED} is set by {source}, but a study's runs have the seeds of seeds = 3 or seeds = [0, 1, 2]; "
                "use these instead"
            )
        where = f"in {point.name}, " if point.choices else ""
        if key == other:
            raise InvalidExperiment(f"{where}{key} is set by {before} and by {source}; leave it to one of them")
        raise InvalidExperiment(
            f"{where}{other} is set by {before} and {key} by {source}, but an experiment has one of the two; "
            "leave it to one of them, or write both as tables of one axis"
        )
    if study.search is not None and study.search.rounds is not None and "run.rounds" in by_key:
        _, source = by_key["run.rounds"]
        raise InvalidExperiment(f"run.rounds is set by {source} and by [search] rounds; leave it to one of them")


def _check_base(study: Study, points: Sequence[Combination]) -> None:
    """Raises InvalidExperiment for a key of [base] that another source sets in every run."""
    replaced = [{_one_of_two(key): source for key, source in _sources(study, point)} for point in points]
    for section, keys in study.base.items():
        for key in (f"{section}.{name}" for name in keys):
            source = replaced[0].get(_one_of_two(key))
            if source is None or not all(_one_of_two(key) in sources for sources in replaced):
                continue
            if key == SEED:
                raise InvalidExperiment(
                    "[base.run] sets seed, but a study's runs have the seeds of seeds = 3 or seeds = [0, 1, 2]; "
                    "use these instead"
                )
            if key == VALIDATION:
                raise InvalidExperiment(f"[base] sets {key}, and so does [search] for its runs; remove it from [base]")
            raise InvalidExperiment(
                f"[base] sets {key}, which no run would have: it is set by {source}; remove it from [base]"
            )


def _check_apart(runs: Iterable[PlannedRun]) -> None:
    """Raises InvalidExperiment if two runs are the same experiment: keys that it does not read are ignored."""
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        other = seen.setdefault(json.dumps(_effective(run.experiment), sort_keys=True), run)
        if other is not run:
            given, here = _with_unread(other.experiment), _with_unread(run.experiment)
            apart = [key for key in given | here if given.get(key) != here.get(key)]
            why = f"{' and '.join(apart)}, in which they differ, change nothing there; " if apart else ""
            raise InvalidExperiment(
                f"{other.name} and {run.name} would be the same run: {why}keep one of them "
                "(tables of one axis, as [[grid.optimizer]], give each value the keys that it reads)"
            )


def _effective(experiment: Experiment) -> dict[str, Any]:
    """The settings that determine a run of virtual clients."""
    unread = experiment.unread | OF_DEPLOYMENT | {"run.participation", "run.keep_models"}
    values = {key: value for key, value in _values(experiment).items() if key not in unread}
    return values | {"run.cohort": experiment.cohort_size}


def _values(experiment: Experiment) -> dict[str, Any]:
    sections: dict[str, dict[str, Any]] = experiment.model_dump(mode="json")
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


def _with_unread(experiment: Experiment) -> dict[str, Any]:
    unread = {section: keys.unread_values for section, keys in experiment if isinstance(keys, Composite)}
    return _values(experiment) | {
        f"{section}.{key}": value for section in unread for key, value in unread[section].items()
    }


def _one_of_two(key: str) -> str:
    """One name for a key and the key that may replace it, such as run.cohort and run.participation."""
    return min(key, INSTEAD_OF.get(key, key))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more runs" if len(names) > 1 else ""
    return f"in {names[0]}{more}"
