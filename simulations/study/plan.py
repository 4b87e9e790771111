"""The runs of a study: every combination of its grid with every seed, each with its own directory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import change, is_key
from fedopt.runs.past_runs import SEARCH
from simulations.study.file import LABEL, SEED, Adjustment, Search, Study

Changes = dict[str, Any]
"""section.key to value."""


@dataclass(frozen=True)
class Choice:
    """One value of an axis."""

    label: str
    changes: Changes
    table: str = ""
    """The label of the table that it comes from. A table with lists gives several choices."""


@dataclass(frozen=True)
class Combination:
    """A point of the grid."""

    choices: Mapping[str, Choice]
    """By axis, in the order of the file."""
    searched: Changes
    """The values that the search chose for it."""

    @property
    def labels(self) -> dict[str, str]:
        return {axis: choice.label for axis, choice in self.choices.items()}

    @property
    def name(self) -> str:
        """Part of a directory's name, for example "scaffold-alpha0.1-momentum"."""
        parts = [
            f"{_key(axis)}{choice.label}" if _is_number(choice.label) else choice.label
            for axis, choice in self.choices.items()
        ]
        return "-".join(re.sub(r"[^A-Za-z0-9.+_]+", "-", part).strip("-.") or "x" for part in parts) or "run"


@dataclass(frozen=True)
class PlannedRun:
    """An experiment and its place in the study."""

    name: str
    """Its directory, relative to the study's."""
    combination: Combination
    seed: int
    experiment: Experiment


def combinations(study: Study) -> list[Combination]:
    axes = {
        axis: [choice for value in values for choice in _choices(axis, value)] for axis, values in study.grid.items()
    }
    found = [Combination(dict(zip(axes, chosen, strict=True)), {}) for chosen in itertools.product(*axes.values())]
    names = [combination.name for combination in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidExperiment(f"grid: two combinations are called {sorted(twice)[0]}; give their values other labels")
    return found


def planned_runs(study: Study, chosen: Sequence[Combination]) -> list[PlannedRun]:
    """Every combination with every seed."""
    return [
        PlannedRun(
            name=f"{combination.name}-seed{seed}",
            combination=combination,
            seed=seed,
            experiment=_experiment(study, combination, {SEED: seed}),
        )
        for combination in chosen
        for seed in study.seed_list
    ]


def search_runs(study: Study, search: Search, combination: Combination) -> list[PlannedRun]:
    """The search runs of this combination; `searched` has the values that each of them tries."""
    held_out: Changes = {"data.validation": search.validation, SEED: search.seed}
    if search.rounds is not None:
        held_out["run.rounds"] = search.rounds
    runs: list[PlannedRun] = []
    for values in itertools.product(*search.grid.values()):
        tried = replace(combination, searched=dict(zip(search.grid, values, strict=True)))
        label = "-".join(f"{_key(key)}{_text(value)}" for key, value in tried.searched.items())
        runs.append(
            PlannedRun(
                name=f"{SEARCH}/{combination.name}-{label}",
                combination=tried,
                seed=search.seed,
                experiment=_experiment(study, tried, held_out),
            )
        )
    return runs


def _experiment(study: Study, combination: Combination, more: Changes) -> Experiment:
    changes: Changes = {}
    for choice in combination.choices.values():
        changes |= choice.changes
    for adjustment in study.adjust:
        if applies(adjustment, combination):
            changes |= adjustment.set
    changes |= combination.searched | more
    for key in changes:
        if not is_key(key):
            raise InvalidExperiment(f"{combination.name}: {key!r} is no key; write section.key, for example local.lr")
    try:
        return Experiment(**change(study.base, list(changes.items())))
    except InvalidExperiment as error:
        raise InvalidExperiment("\n".join(f"{combination.name}: {line}" for line in str(error).splitlines())) from error


def applies(adjustment: Adjustment, combination: Combination) -> bool:
    """Whether the adjustment matches this combination."""
    return all(matches(combination.choices[axis], axis, value) for axis, value in adjustment.when.items())


def matches(choice: Choice, axis: str, value: Any) -> bool:
    """Whether the choice has that value: as its label, as its table's label, or as what it sets the axis to."""
    return value in (choice.label, choice.table or choice.label, choice.changes.get(axis, choice.label))


def _choices(axis: str, value: Any) -> Iterator[Choice]:
    """The choices that a value of the grid gives: one, or one for each combination of the lists in its table."""
    if not isinstance(value, Mapping):
        if not is_key(axis):
            raise InvalidExperiment(
                f"grid: {axis} is no key of an experiment; write section.key, or tables with a label"
            )
        yield Choice(_text(value), {axis: value})
        return
    keys = {key: entry for key, entry in value.items() if key != LABEL}
    lists = {key: entry for key, entry in keys.items() if isinstance(entry, list)}
    fixed = {key: entry for key, entry in keys.items() if key not in lists}
    label = str(value.get(LABEL) or " ".join(_text(entry) for entry in fixed.values()))
    for entries in itertools.product(*lists.values()):
        tried = dict(zip(lists, entries, strict=True))
        parts = [label, *(f"{_key(key)}={_text(entry)}" for key, entry in tried.items())]
        yield Choice(" ".join(part for part in parts if part), fixed | tried, label)


def _text(value: Any) -> str:
    """A value as part of a label."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "+".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key(path: str) -> str:
    return path.rpartition(".")[2]


def _is_number(label: str) -> bool:
    return re.fullmatch(r"[-+0-9.e]+", label) is not None
