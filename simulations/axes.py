"""Distinguishes runs that were not planned together: by the keys in which they differ, and by their data.

It also finds runs that are repetitions of another.
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
from fedopt.runs.quality import figure

OF_THE_MACHINE = {
    *("data.path", "data.download"),
    *("run.device", "run.threads", "run.lanes", "run.workers", "run.cuda_graphs", "run.checkpoint_every"),
    *("run.keep_models", "run.min_replies", "run.deadline", "run.patience"),
}
"""Keys that change where and how fast a run is computed, but not its result."""

SEED = "run.seed"

NO_AXIS = (
    OF_THE_MACHINE | {SEED} | {f"metrics.{key}" for key in ("drift", "drift_every", "clients_every", "divergence")}
)
"""Keys that never become an axis: those of the machine, the seed, and the measures, which do not change the model."""

DATA = "data"
"""The axis of runs whose data differ although their settings are the same; labels are file names or fingerprints."""

PARTITION = "partition sha256"
"""The axis of runs with the same experiment and seed but different partitions; labels are fingerprints."""

NOT_COMPARED = {DATA, PARTITION, "data.name"}
"""Axes along which accuracies are not comparable."""

UNKNOWN = "-"
FINGERPRINT_DIGITS = 8
"""Hexadecimal digits of a fingerprint in a label."""


@dataclass(frozen=True)
class LabeledRun:
    """A run with the labels that distinguish it from others."""

    labels: dict[str, str]
    seed: int
    run: PastRun

    def with_label(self, axis: str, label: str) -> LabeledRun:
        return replace(self, labels=self.labels | {axis: label})


def by_settings(runs: Sequence[PastRun]) -> list[LabeledRun]:
    """Labels the runs; the axes are the keys whose values differ between runs."""
    values = [_flat(run.experiment) for run in runs]
    if len({flat["run.cohort"] == UNKNOWN for flat in values}) > 1:  # a number in some runs, a share in others
        for flat, run in zip(values, runs, strict=True):
            flat |= {"run.cohort": str(run.experiment.cohort_size), "run.participation": UNKNOWN}
    keys = list(dict.fromkeys(key for flat in values for key in flat))
    # A key that only some runs have, such as an algorithm's variant, follows from another axis.
    axes = [key for key in keys if len({flat[key] for flat in values if key in flat}) > 1]
    axes.sort(key=lambda key: key != "algorithm.name")  # the first axis, if it is one
    return [
        LabeledRun({axis: flat.get(axis, UNKNOWN) for axis in axes}, run.experiment.run.seed, run)
        for flat, run in zip(values, runs, strict=True)
    ]


def by_data(rows: Sequence[LabeledRun], warnings: list[str], planned: bool = False) -> list[LabeledRun]:
    """The rows, with one more axis if runs with the same data settings read different data.

    `planned` runs belong to a study, so only runs with the same data.path should have the same data.
    """
    same_data: dict[tuple[str, int | None], list[PastRun]] = {}
    at_any_seed: dict[str, list[PastRun]] = {}
    for row in rows:
        settings, data = _settings_of_data(row.run.experiment.data, with_path=planned), row.run.experiment.data
        same_data.setdefault((settings, row.seed if data.is_drawn else None), []).append(row.run)
        at_any_seed.setdefault(settings, []).append(row.run)
    for runs in at_any_seed.values():
        _warn_of_unknown(runs, warnings)
    labels = {run.path: label for runs in same_data.values() for run, label in _labels_of_data(runs)}
    if not labels:
        return list(rows)
    return [row.with_label(DATA, labels.get(row.run.path, UNKNOWN)) for row in rows]


def by_partition(rows: Sequence[LabeledRun], warnings: list[str]) -> list[LabeledRun]:
    """The rows, with one more axis if runs with the same experiment, data and seed have different partitions."""
    labels: dict[Path, str] = {}
    for repetitions in _repeated(rows):
        found = _partitions([row.run for row in repetitions])
        if len(set(found)) > 1:
            labels |= {row.run.path: label for row, label in zip(repetitions, found, strict=True)}
    if not labels:
        return list(rows)
    warnings.append(
        f"{len(labels)} runs share experiment, data and seed with another, but their data are divided differently "
        "(by another fedopt, or by clients with data of their own); the partition's fingerprint distinguishes them"
    )
    return [row.with_label(PARTITION, labels.get(row.run.path, UNKNOWN)) for row in rows]


def without_repeats(rows: Sequence[LabeledRun], warnings: list[str]) -> list[LabeledRun]:
    """The rows, with only one of those that have the same experiment, data and seed: the first that has finished."""
    dropped: dict[int, str] = {}
    for repetitions in _repeated(rows):
        first = next((row for row in repetitions if row.run.finished and row.run.failure is None), repetitions[0])
        dropped |= {id(row): _repetition(row.run, first.run) for row in repetitions if row is not first}
    if len(dropped) == 1:
        warnings.append(f"{next(iter(dropped.values()))}: the same experiment, data and seed; it is left out")
    elif dropped:
        more = f", and {len(dropped) - 5} more" if len(dropped) > 5 else ""
        named = ", ".join(list(dropped.values())[:5])
        warnings.append(
            f"{len(dropped)} runs have the same experiment, data and seed as others, and are left out: {named}{more}"
        )
    return [row for row in rows if id(row) not in dropped]


def _flat(experiment: Experiment) -> dict[str, str]:
    """Every key that may become an axis, with its value as text, without keys that the experiment does not read."""
    ignored = experiment.unread | NO_AXIS
    sections: dict[str, dict[str, Any]] = experiment.model_dump(mode="json")
    return {
        f"{section}.{key}": _text(value)
        for section, keys in sections.items()
        for key, value in keys.items()
        if f"{section}.{key}" not in ignored
    }


def _text(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else json.dumps(value)


def _settings_of_data(data: DataSettings, with_path: bool) -> str:
    """Equal for settings that read the same samples, or draw them from the same seed; without paths, copies of a file
    count as the same."""
    read = {**data.source.model_dump(mode="json"), "validation": data.validation}
    # Data that are drawn may depend on everything, other data on no key of who holds which sample.
    keys = data.model_dump(mode="json") if data.source.is_drawn else read
    ignored = {"download"} if with_path else {"download", "path", "test"}
    return json.dumps({key: value for key, value in keys.items() if key not in ignored})


def _repeated(rows: Sequence[LabeledRun]) -> list[list[LabeledRun]]:
    """The groups of rows with the same labels and seed, where a group has more than one row."""
    found: dict[tuple[tuple[tuple[str, str], ...], int], list[LabeledRun]] = {}
    for row in rows:
        found.setdefault((tuple(row.labels.items()), row.seed), []).append(row)
    return [repetitions for repetitions in found.values() if len(repetitions) > 1]


def _labels_of_data(runs: Sequence[PastRun]) -> list[tuple[PastRun, str]]:
    """For runs whose data should be the same: nothing if they are, else a label for each run's data."""
    by_hash: dict[str, set[str]] = {}
    for run in runs:
        if run.fingerprint is not None:
            by_hash.setdefault(run.fingerprint.data, set()).add(_name_of_data(run.experiment.data))
    if len(by_hash) < 2:
        return []
    names = [name for found in by_hash.values() for name in found]
    names_suffice = all(len(found) == 1 for found in by_hash.values()) and len(set(names)) == len(by_hash)
    return [
        (run, _name_of_data(run.experiment.data) if names_suffice else _name_with_hash(run))
        for run in runs
        if run.fingerprint is not None
    ]


def _name_of_data(data: DataSettings) -> str:
    return data.source.title


def _name_with_hash(run: PastRun) -> str:
    assert run.fingerprint is not None
    return f"{_name_of_data(run.experiment.data)} {run.fingerprint.data[:FINGERPRINT_DIGITS]}"


def _warn_of_unknown(runs: Sequence[PastRun], warnings: list[str]) -> None:
    """Adds a warning if runs read files at different paths and no fingerprint shows whether the files are the same."""
    unknown = [run for run in runs if run.fingerprint is None or run.experiment.data.is_drawn]
    data = runs[0].experiment.data
    if unknown and data.source.is_own and len({run.experiment.data.path for run in runs}) > 1:
        warnings.append(
            f"data.path is not the same in all runs, and for {len(unknown)} of them, {unknown[0].path} for one, no "
            "fingerprint can say whether the data are"
        )


def _partitions(runs: Sequence[PastRun]) -> list[str]:
    """A label for each run's partition, from its fingerprint if all runs have one, else from the clients' sizes."""
    known = [run.fingerprint.partition if run.fingerprint is not None else None for run in runs]
    if all(known):
        return [str(found)[:FINGERPRINT_DIGITS] for found in known]
    sizes = [run.partition.sizes if run.partition is not None else None for run in runs]
    if None in sizes:
        return [UNKNOWN] * len(runs)
    return [hashlib.sha256(json.dumps(found).encode()).hexdigest()[:FINGERPRINT_DIGITS] for found in sizes]


def _repetition(run: PastRun, first: PastRun) -> str:
    ends = [past.summary.final for past in (run, first) if past.summary is not None]
    scores = [figure(end.score, end.regression is not None) for end in ends]
    differs = len(ends) == 2 and ends[0].score != ends[1].score
    differ = f" (though it ended at {scores[0]}, not {scores[1]})" if differs else ""
    return f"{run.path} is {first.path} again{differ}"
