"""The run directory. Its file names are stable because people's scripts read them.

experiment.toml      the experiment with all keys, defaults included
metrics.jsonl        one line per round
partition.json       how many samples of each class each client has
fingerprint.json     hashes of the data and of their partition
model.safetensors    the latest global model, under its state_dict names
models/              with run.keep_models: round-000010.safetensors and others, the same after that round
summary.json         written when the run has ended
checkpoint/          what --resume reads
scaling.safetensors  mean and deviation of each feature or channel, where samples were shifted and scaled
initial.safetensors  the initial weights of a model that was passed as a Python object
modules.json         where the modules of the user's own code were found
tracking.json        with --track: the run's ids in trackers, and the rounds they have
analysis/            figures and numbers of `fedopt analyze`
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import secrets
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import safetensors.torch
from pydantic import ValidationError
from torch import Tensor

from fedopt.data.dataset import Scaling
from fedopt.data.fingerprint import Fingerprint
from fedopt.data.label_skew import LabelSpread
from fedopt.errors import BrokenRun, DataUnavailable, InvalidExperiment, NotStored
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import override, to_toml
from fedopt.family import outside_names
from fedopt.runs.history import RoundRecord, Summary
from fedopt.runs.model_file import FILE, ModelFacts, file_of_round, remove_later
from fedopt.runs.modules import recall_modules, record_modules
from fedopt.runs.past_runs import FAILURE
from fedopt.storage.files import NO_ROOM, replace_file
from fedopt.storage.tensor_file import write_tensors

INITIAL = "initial.safetensors"
SCALING = "scaling.safetensors"


class RunDirectory:
    """A run's directory, locked by one process at a time."""

    def __init__(self, path: Path, experiment: Experiment) -> None:
        """Use `create` or `reopen`."""
        self.path, self.experiment = path, experiment
        self._lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise BrokenRun(f"{path} is in use by another process") from error

    @classmethod
    def create(cls, path: Path | None, experiment: Experiment) -> RunDirectory:
        """Makes the directory at `path` or, if that is None, a new one in runs/ named by time, data and algorithm."""
        if path is not None:
            try:
                check_unused(path)
                _make(path, experiment)
            except FileExistsError as error:
                raise InvalidExperiment(f"--out {path} was made by another process just now") from error
            return cls(path, experiment)
        for path in _names(experiment):
            if not path.exists():
                with suppress(FileExistsError):  # another process may have made it since
                    _make(path, experiment)
                    return cls(path, experiment)
        raise AssertionError("names do not end")

    @classmethod
    def reopen(cls, path: Path, overrides: list[str]) -> RunDirectory:
        """Opens the directory of a run that stopped, with the overrides applied to its experiment."""
        return cls(path, read_run_experiment(path, overrides))

    def close(self) -> None:
        os.close(self._lock)

    @property
    def has_records(self) -> bool:
        return (self.path / "metrics.jsonl").exists()

    def append(self, record: RoundRecord) -> None:
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as stream:
            stream.write(record.model_dump_json() + "\n")

    def rewind(self, rounds: int) -> list[RoundRecord]:
        """Returns the records of the first `rounds` rounds and removes later ones, which have no checkpoint, and the
        models that were kept of them."""
        file = self.path / "metrics.jsonl"
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        try:
            records = [RoundRecord.model_validate_json(line) for line in lines[:rounds]]
        except ValidationError as error:
            raise BrokenRun(f"{file} was edited: one of its first {rounds} lines is not a record") from error
        if [record.round for record in records] != list(range(1, rounds + 1)):
            raise BrokenRun(f"{file} was edited: it lacks rounds that the checkpoint has")
        if lines[rounds:]:
            replace_file(file, b"".join(lines[:rounds]))
        remove_later(self.path, rounds)
        return records

    def write_experiment(self) -> None:
        replace_file(self.path / "experiment.toml", to_toml(self.experiment).encode())

    def write_model(self, state: dict[str, Tensor], about: ModelFacts) -> None:
        replace_file(self.path / FILE, safetensors.torch.save(state, about.as_metadata()))

    def keep_model(self, state: dict[str, Tensor], about: ModelFacts) -> None:
        """Writes the model of a round beside those of other rounds."""
        file = file_of_round(self.path, about.round)
        file.parent.mkdir(exist_ok=True)
        replace_file(file, safetensors.torch.save(state, about.as_metadata()))

    def write_partition(self, labels: LabelSpread) -> None:
        replace_file(self.path / "partition.json", (labels.model_dump_json() + "\n").encode())

    def keep_scaling(self, scaling: Scaling | None) -> None:
        """Writes how the samples were shifted and scaled, if they were."""
        if scaling is not None:
            write_tensors(self.path / SCALING, {"mean": scaling.mean, "deviation": scaling.deviation}, {})

    def keep_fingerprint(self, found: Fingerprint) -> None:
        """Writes the fingerprint of a new run; raises DataUnavailable if a resumed run had a different one.

        A run made before fingerprints existed continues without one, because its data are unknown.
        """
        file = self.path / "fingerprint.json"
        try:
            before = Fingerprint.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            if not self.has_records and not (self.path / "checkpoint").exists():
                replace_file(file, (found.model_dump_json(indent=2) + "\n").encode())
            return
        except (ValidationError, OSError) as error:
            raise BrokenRun(f"{file} is torn or was edited: it is no fingerprint of data") from error
        begin = f"{self.path} was begun on"
        if before.data != found.data:
            raise DataUnavailable(
                f"{begin} data with the fingerprint {before.data[:12]}, and {self.experiment.data.source.name} now has "
                f"{found.data[:12]}; put those data back (data.path says where they are looked for), or begin a new run"
            )
        if before.partition is not None and found.partition is not None and before.partition != found.partition:
            raise DataUnavailable(
                f"{begin} a partition with the fingerprint {before.partition[:12]}, and the same data are now divided "
                f"as {found.partition[:12]}; go on with the fedopt that began it, or begin a new run"
            )

    def withdraw_end(self) -> None:
        """Removes summary.json and failure.txt: a run that goes on is no longer finished, and has not failed."""
        (self.path / "summary.json").unlink(missing_ok=True)
        (self.path / FAILURE).unlink(missing_ok=True)

    def write_summary(self, summary: Summary) -> None:
        replace_file(self.path / "summary.json", (summary.model_dump_json(indent=2) + "\n").encode())


def check_unused(path: Path) -> None:
    """Raises InvalidExperiment if `path` holds anything: no run overwrites another."""
    if path.exists() and not path.is_dir():
        raise InvalidExperiment(f"--out {path} is a file; name a new directory")
    if path.is_dir() and any(path.iterdir()):
        if (path / "experiment.toml").exists():
            how = f"continue it with --resume {shlex.quote(str(path))} (in Python, fedopt.resume), or name a new one"
            raise InvalidExperiment(f"--out {path} holds a run already; {how}")
        raise InvalidExperiment(f"--out {path} is not empty; name a new directory")


def read_run_experiment(path: Path, overrides: list[str]) -> Experiment:
    """Reads the experiment of the run at `path` and applies the overrides."""
    if not (path / "experiment.toml").is_file():
        raise InvalidExperiment(f"--resume {path}: there is no run, for it has no experiment.toml")
    try:
        given = tomllib.loads((path / "experiment.toml").read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BrokenRun(f"{path / 'experiment.toml'} is torn or was edited: {error}") from error
    recall_modules(given, path)
    return Experiment(**override(given, overrides))


def _names(experiment: Experiment) -> Iterator[Path]:
    """An endless series of names in runs/ for a run that starts now."""
    members = (experiment.data.source.name, experiment.algorithm.name)
    name = "-".join([f"{datetime.now():%Y%m%d-%H%M%S}", *map(_file_name, members)])
    yield Path("runs") / name
    for number in itertools.count(2):
        yield Path("runs") / f"{name}-{number}"


def _file_name(member: str) -> str:
    """The name of a member without its module or library, in characters that every file system takes."""
    _, colon, own = member.rpartition(":")
    bare = own.rpartition(".")[2] if colon else own  # of a class within a class or a function, its own name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", bare).strip("-.") or "own"


def _make(path: Path, experiment: Experiment) -> None:
    """Makes the directory together with experiment.toml, atomically."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
    try:
        draft.mkdir(parents=True)
        replace_file(draft / "experiment.toml", to_toml(experiment).encode())
        record_modules(outside_names(experiment), draft)
        initial = experiment.model.initial_state()
        if initial is not None:
            write_tensors(draft / INITIAL, initial, {})
        draft.replace(path)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(error.errno, f"{path} is there already") from error
        if error.errno in NO_ROOM:
            raise NotStored(f"--out {path} cannot be made: {error.strerror}") from error
        raise InvalidExperiment(f"--out {path} cannot be made: {error.strerror}") from error
