"""Reads run directories in any state: finished, running, interrupted or damaged."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from fedopt.data.fingerprint import Fingerprint
from fedopt.data.label_skew import LabelSpread
from fedopt.errors import FedoptError, InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.imports import reading_only
from fedopt.runs.history import History, RoundRecord, Summary

FAILURE = "failure.txt"
"""In the directory of a study's run that failed: the reason."""

DIVERGED = "diverged: "
"""How the reason begins if the run diverged. That is a result, and repeating the run would not help."""

SEARCH = "search"
"""In a study's directory: the runs of its hyperparameter search."""

OF_TRACKERS = {"mlartifacts", "mlruns", "wandb"}
"""Folders in which MLflow and Weights & Biases keep copies of a run's files."""

NO_RUNS_BELOW = {"site-packages", "dist-packages", "node_modules", "__pycache__"}
"""Folders of installed packages, whose templates are no runs."""

ENVIRONMENT = ("pyvenv.cfg", "conda-meta")
"""What a Python environment's folder holds."""

MADE_BY_RUNS = {"metrics.jsonl", "summary.json", "partition.json", "fingerprint.json", "checkpoint", FAILURE}
"""What a run puts beside its experiment.toml."""


@dataclass(frozen=True)
class PastRun:
    """Everything that could be read of a run."""

    path: Path
    experiment: Experiment
    records: tuple[RoundRecord, ...]
    summary: Summary | None
    """None if the run has not ended."""
    partition: LabelSpread | None
    fingerprint: Fingerprint | None
    """None for a run made before fingerprints existed."""
    failure: str | None
    warnings: tuple[str, ...]
    """A sentence for each thing that could not be read."""

    @property
    def finished(self) -> bool:
        return self.summary is not None


def read_run(path: Path) -> PastRun:
    """Reads the run at `path`. Raises InvalidExperiment if there is none or its experiment cannot be read."""
    try:
        given = tomllib.loads((path / "experiment.toml").read_text(encoding="utf-8-sig"))
        # Code is never looked for where the run's directory says: it may come from somebody else.
        with reading_only():
            experiment = Experiment(**given)
    except FileNotFoundError as error:
        raise InvalidExperiment(f"{path} holds no run: it has no experiment.toml") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, FedoptError) as error:
        raise InvalidExperiment(f"{path / 'experiment.toml'} cannot be read: {_first_line(error)}") from error
    warnings: list[str] = []
    records = tuple(_records(path / "metrics.jsonl", warnings))
    summary = _read(path / "summary.json", Summary, warnings)
    partition = _read(path / "partition.json", LabelSpread, warnings)
    fingerprint = _read(path / "fingerprint.json", Fingerprint, warnings)
    failure = read_failure(path)
    if failure is not None:
        warnings.append(f"{path} did not finish: {failure.splitlines()[0]}")
    elif summary is None and not warnings:
        warnings.append(f"{path} has not ended: {_rounds_of(records, experiment)}")
    return PastRun(path, experiment, records, summary, partition, fingerprint, failure, tuple(warnings))


def past_run_of(history: History) -> PastRun:
    """A run in memory, with what its directory says of its data. One that has not ended is read anew."""
    path = history.directory
    if not history.finished:
        return read_run(path)
    warnings: list[str] = []
    partition = _read(path / "partition.json", LabelSpread, warnings)
    fingerprint = _read(path / "fingerprint.json", Fingerprint, warnings)
    return PastRun(
        path, history.experiment, history.records, history.summary, partition, fingerprint, None, tuple(warnings)
    )


def read_failure(path: Path) -> str | None:
    """Why the run at `path` failed, as its study recorded; None if it did not."""
    try:
        return (path / FAILURE).read_text(encoding="utf-8", errors="replace").strip() or "for no reason given"
    except (FileNotFoundError, NotADirectoryError):
        return None


def find_runs(places: Sequence[Path]) -> list[Path]:
    """The run directories at or below `places`, ordered by name. Raises InvalidExperiment for a place with none."""
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise InvalidExperiment(f"there is no directory {place}")
        if not place.is_dir():
            raise InvalidExperiment(f"{place} is not a directory")
        below = list(_runs_below(place))
        if not below:
            raise InvalidExperiment(f"{place} holds no run, nor does any folder below it")
        found += [path for path in below if path not in found]
    return found


def _runs_below(place: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(place):
        entries = {*folders, *files}
        if Path(folder) != place and not entries.isdisjoint(ENVIRONMENT):
            folders.clear()
            continue
        # Runs are not nested, a draft is no run yet, and the runs of a study's search are not its results.
        is_run = "experiment.toml" in files
        hidden = {SEARCH} if "study.toml" in files else set()
        hidden |= OF_TRACKERS | NO_RUNS_BELOW
        folders[:] = sorted(name for name in folders if name not in hidden and not name.startswith("."))
        if is_run and folders and entries.isdisjoint(MADE_BY_RUNS):
            continue  # a project's experiment, with its runs below
        if is_run:
            folders.clear()
            yield Path(folder)


def _records(file: Path, warnings: list[str]) -> Iterator[RoundRecord]:
    """The records that can be read, in order; of two lines about one round the first counts."""
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        warnings.append(f"{file} cannot be read: {error.strerror}")
        return
    last = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = RoundRecord.model_validate_json(line)
        except ValidationError:
            torn = number == len(lines)  # a line that is being written has no end yet
            warnings.append(f"{file}: line {number} is {'not whole' if torn else 'not a record'}; it is left out")
            continue
        if record.round <= last:
            warnings.append(f"{file}: line {number} is of round {record.round} again; it is left out")
            continue
        last = record.round
        yield record


Record = TypeVar("Record", Summary, LabelSpread, Fingerprint)


def _read(file: Path, kind: type[Record], warnings: list[str]) -> Record | None:
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError):
        warnings.append(f"{file} cannot be read; it is left out")
        return None


def _rounds_of(records: Sequence[RoundRecord], experiment: Experiment) -> str:
    return f"it has {records[-1].round if records else 0} of {experiment.run.rounds} rounds"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
