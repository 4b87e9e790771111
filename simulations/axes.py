"""How runs that were not planned together are distinguished: by the keys in which they differ, and by their data.

It also finds which of them are the same run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedopt.data.settings import DataSettings
from fedopt.experiment.experiment import Experiment
from fedopt.runs.past_runs import PastRun

OF_THE_MACHINE = {
    *("data.path", "data.download"),
    *("run.device", "run.threads", "run.lanes", "run.workers", "run.cuda_graphs", "run.checkpoint_every"),
    *("run.min_replies", "run.deadline", "run.patience"),
}
"""Keys that say where and how fast a run is computed, and not what it learns."""

SEED = "run.seed"

NO_AXIS = (
    OF_THE_MACHINE | {SEED} | {f"metrics.{key}" for key in ("drift", "drift_every", "clients_every", "divergence")}
)
"""Keys that no comparison asks about: machines, seeds, and measures, which change nothing that is learned."""

DATA = "data"
"""The axis of runs whose data differ under the same settings: labels are files' names, or fingerprints."""

PARTITION = "partition sha256"
"""The axis of runs of one experiment and seed whose clients hold different samples; labels are fingerprints."""

NOT_COMPARED = {DATA, PARTITION, "data.name"}
"""Axes along which accuracies do not compare."""

UNKNOWN, SHOWN = "-", 8


@dataclass(frozen=True)
class Labelled:
    """A run with what tells it apart from others."""

    labels: dict[str, str]
    seed: int
    run: PastRun

    def also(self, axis: str, label: str) -> Labelled:
        return replace(self, labels=self.labels | {axis: label})


def by_settings(runs: Sequence[PastRun]) -> list[Labelled]:
    """Axes are the keys whose values are not the same in all runs."""
    values = [_flat(run.experiment) for run in runs]
    if len({flat["run.cohort"] == UNKNOWN for flat in values}) > 1:  # given as a number here, as a share there
        for flat, run in zip(values, runs, strict=True):
            flat |= {"run.cohort": str(run.experiment.cohort_size), "run.participation": UNKNOWN}
    keys = list(dict.fromkeys(key for flat in values for key in flat))
    # A key that some have and others do not, as a variant of one algorithm, follows from another axis.
    axes = [key for key in keys if len({flat[key] for flat in values if key in flat}) > 1]
    axes.sort(key=lambda key: key != "algorithm.name")  # the first of all, where it differs
    return [
        Labelled({axis: flat.get(axis, UNKNOWN) for axis in axes}, run.experiment.run.seed, run)
        for flat, run in zip(values, runs, strict=True)
    ]


def by_data(rows: Sequence[Labelled], complaints: list[str], planned: bool = False) -> list[Labelled]:
    """The rows with one more axis, where their settings are alike and their data are not.

    A study has planned which files it reads: `planned` runs differ where one file has changed between them.
    """
    alike: dict[tuple[str, int | None], list[PastRun]] = {}
    at_any_seed: dict[str, list[PastRun]] = {}
    for row in rows:
        settings, data = _settings_of_data(row.run.experiment.data, with_path=planned), row.run.experiment.data
        alike.setdefault((settings, row.seed if data.is_drawn else None), []).append(row.run)
        at_any_seed.setdefault(settings, []).append(row.run)
    for runs in at_any_seed.values():
        _complain_of_unknown(runs, complaints)
    labels = {run.path: label for runs in alike.values() for run, label in _labels_of_data(runs)}
    if not labels:
        return list(rows)
    return [row.also(DATA, labels.get(row.run.path, UNKNOWN)) for row in rows]


def by_partition(rows: Sequence[Labelled], complaints: list[str]) -> list[Labelled]:
    """The rows with one more axis, where one experiment, data and seed were divided differently."""
    labels: dict[Path, str] = {}
    for again in _repeated(rows):
        found = _partitions([row.run for row in again])
        if len(set(found)) > 1:
            labels |= {row.run.path: label for row, label in zip(again, found, strict=True)}
    if not labels:
        return list(rows)
    complaints.append(
        f"{len(labels)} runs share experiment, data and seed with another, but their data are divided differently "
        "(by another fedopt, or by clients with data of their own): the fingerprint of the partition tells them apart"
    )
    return [row.also(PARTITION, labels.get(row.run.path, UNKNOWN)) for row in rows]


def without_repeats(rows: Sequence[Labelled], complaints: list[str]) -> list[Labelled]:
    """The rows, but one alone of those with the same experiment, data and seed: the first that has ended."""
    dropped: dict[int, str] = {}
    for again in _repeated(rows):
        first = next((row for row in again if row.run.finished and row.run.failure is None), again[0])
        dropped |= {id(row): _is_again(row.run, first.run) for row in again if row is not first}
    if len(dropped) == 1:
        complaints.append(f"{next(iter(dropped.values()))}: the same experiment, data and seed; it is left out")
    elif dropped:
        more = f", and {len(dropped) - 5} more" if len(dropped) > 5 else ""
        named = ", ".join(list(dropped.values())[:5])
        complaints.append(
            f"{len(dropped)} runs have the same experiment, data and seed as others, and are left out: {named}{more}"
        )
    return [row for row in rows if id(row) not in dropped]


def _flat(experiment: Experiment) -> dict[str, str]:
    """Every key that may tell it apart, as text; what it does not read is left out."""
    idle = experiment.unread | NO_AXIS
    sections: dict[str, dict[str, Any]] = experiment.model_dump(mode="json")
    return {
        f"{section}.{key}": _text(value)
        for section, keys in sections.items()
        for key, value in keys.items()
        if f"{section}.{key}" not in idle
    }


def _text(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else json.dumps(value)


def _settings_of_data(data: DataSettings, with_path: bool) -> str:
    """Equal where the same samples are read, or drawn under the same seed; without paths, for copies of a file too."""
    read = {**data.source.model_dump(mode="json"), "validation": data.validation}
    # Data that are drawn may depend on everything, other data on no key of who holds which sample.
    keys = data.model_dump(mode="json") if data.source.is_drawn else read
    ignored = {"download"} if with_path else {"download", "path"}
    return json.dumps({key: value for key, value in keys.items() if key not in ignored})


def _repeated(rows: Sequence[Labelled]) -> list[list[Labelled]]:
    """Rows with the same labels and seed, where there is more than one."""
    found: dict[tuple[tuple[tuple[str, str], ...], int], list[Labelled]] = {}
    for row in rows:
        found.setdefault((tuple(row.labels.items()), row.seed), []).append(row)
    return [again for again in found.values() if len(again) > 1]


def _labels_of_data(runs: Sequence[PastRun]) -> list[tuple[PastRun, str]]:
    """For runs whose data should be the same: nothing if they are, else a label for each run's."""
    by_hash: dict[str, set[str]] = {}
    for run in runs:
        if run.fingerprint is not None:
            by_hash.setdefault(run.fingerprint.data, set()).add(_name_of_data(run.experiment.data))
    if len(by_hash) < 2:
        return []
    names = [name for found in by_hash.values() for name in found]
    telling = all(len(found) == 1 for found in by_hash.values()) and len(set(names)) == len(by_hash)
    return [
        (run, _name_of_data(run.experiment.data) if telling else _name_with_hash(run))
        for run in runs
        if run.fingerprint is not None
    ]


def _name_of_data(data: DataSettings) -> str:
    return data.source.title


def _name_with_hash(run: PastRun) -> str:
    assert run.fingerprint is not None
    return f"{_name_of_data(run.experiment.data)} {run.fingerprint.data[:SHOWN]}"


def _complain_of_unknown(runs: Sequence[PastRun], complaints: list[str]) -> None:
    """A sentence where files with other paths are read, and no fingerprint says whether they are the same."""
    unknown = [run for run in runs if run.fingerprint is None or run.experiment.data.is_drawn]
    data = runs[0].experiment.data
    if unknown and data.source.is_own and len({run.experiment.data.path for run in runs}) > 1:
        complaints.append(
            f"data.path is not the same in all runs, and for {len(unknown)} of them, {unknown[0].path} for one, no "
            "fingerprint can say whether the data are"
        )


def _partitions(runs: Sequence[PastRun]) -> list[str]:
    """A label for each run's partition: of who holds which samples where all runs know it, else of how many."""
    known = [run.fingerprint.partition if run.fingerprint is not None else None for run in runs]
    if all(known):
        return [str(found)[:SHOWN] for found in known]
    sizes = [run.partition.sizes if run.partition is not None else None for run in runs]
    if None in sizes:
        return [UNKNOWN] * len(runs)
    return [hashlib.sha256(json.dumps(found).encode()).hexdigest()[:SHOWN] for found in sizes]


def _is_again(run: PastRun, first: PastRun) -> str:
    ends = [past.summary.final.test_accuracy if past.summary is not None else None for past in (run, first)]
    differ = (
        f" (though it ended at {ends[0]:.2%}, not {ends[1]:.2%})" if None not in ends and ends[0] != ends[1] else ""
    )
    return f"{run.path} is {first.path} again{differ}"
