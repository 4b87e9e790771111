"""Checkpoints: everything that a run needs to continue as if it had never stopped.

    checkpoint/checkpoint.json                     names the files that count; replacing it commits a checkpoint
    checkpoint/server-round-000012.safetensors     x and the algorithm's vectors beside it
    checkpoint/clients/client-000007-round-000011.safetensors   a client's state (virtual clients only)

Files are named by round and never changed, so a run that is killed at any moment leaves its last checkpoint intact.
No random state is stored: every stream is keyed by seed, purpose, round and client.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedopt.errors import BrokenRun, InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import as_sections
from fedopt.round.federation import Federation
from fedopt.round.state import ServerState
from fedopt.storage.files import replace_file
from fedopt.storage.tensor_file import client_file, read_tensors, write_tensors
from fedopt.vectors.layout import Vectors

MAY_CHANGE = {
    "data": {"path", "test", "download"},
    "run": {"rounds", "target_accuracy", "stop_at_target", "device", "threads", "lanes", "workers", "backend"}
    | {"checkpoint_every", "keep_models", "min_replies", "deadline", "patience"},
    "metrics": {"drift", "drift_every", "clients_every"},
    "admission": {"largest_norm", "largest_loss", "largest_samples"},
}
"""Keys that a resumed run may change: none of them changes the results of the rounds so far."""


class Manifest(BaseModel):
    """checkpoint.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="constants")

    format: int
    round: int
    experiment: dict[str, dict[str, Any]]
    """The experiment of the rounds so far."""
    accepted: dict[str, int]
    seconds: float
    """Wall time the run has taken so far."""
    norms: dict[str, list[float]] = Field(default_factory=dict)
    """ServerState.norms."""
    sha256: str = ""
    """Of this file's other entries."""

    def sealed(self) -> Manifest:
        # Manifests from before there were norms have a checksum without them.
        rest = self.model_dump_json(exclude={"sha256"} if self.norms else {"sha256", "norms"}).encode()
        return self.model_copy(update={"sha256": hashlib.sha256(rest).hexdigest()})


FORMAT = 1


class Checkpoints:
    """The checkpoint/ folder of one run."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self._folder = folder
        self._manifest = folder / "checkpoint.json"
        self._experiment = experiment

    @property
    def exists(self) -> bool:
        return self._manifest.exists()

    def check(self) -> None:
        """BrokenRun if the last manifest is incomplete; InvalidExperiment if the experiment has changed."""
        if self.exists:
            self._read_manifest()

    def save(self, state: ServerState, federation: Federation, seconds: float) -> None:
        """Writes a checkpoint. Until checkpoint.json is replaced, the previous one counts."""
        self._folder.mkdir(exist_ok=True)
        federation.save(self._folder / "clients", state.accepted)
        write_tensors(self._server_file(state.round), {"x": state.x, **state.server}, {"round": state.round})
        manifest = Manifest(
            format=FORMAT,
            round=state.round,
            experiment=as_sections(self._experiment),
            accepted={str(client): round_ for client, round_ in sorted(state.accepted.items())},
            seconds=seconds,
            norms={name: list(medians) for name, medians in sorted(state.norms.items())},
        ).sealed()
        replace_file(self._manifest, (manifest.model_dump_json(indent=1) + "\n").encode())
        federation.prune(self._folder / "clients", state.accepted)
        for file in self._folder.glob("*server-round-*"):
            if file != self._server_file(state.round):
                file.unlink()

    def load(self, initial: ServerState, federation: Federation) -> tuple[ServerState, float]:
        """The state and the seconds of the last checkpoint.

        BrokenRun, and nothing is loaded, if it is incomplete; InvalidExperiment if the experiment has changed.
        """
        manifest = self._read_manifest()
        like = {"x": initial.x, **initial.server}
        vectors = read_tensors(self._server_file(manifest.round), like, {"round": manifest.round})
        accepted = {int(client): round_ for client, round_ in manifest.accepted.items()}
        federation.restore(self._folder / "clients", accepted)
        norms = {name: tuple(medians) for name, medians in manifest.norms.items()}
        return ServerState(manifest.round, vectors.pop("x"), vectors, accepted, norms), manifest.seconds

    def client_state(self, client: int, initial: Vectors) -> Vectors:
        """The state that this virtual client has at the last checkpoint; `initial` if it has not taken part yet.

        BrokenRun if there is no such file, as in the directory of a deployed federation.
        """
        accepted = self._read_manifest().accepted.get(str(client))
        if accepted is None:
            return initial
        file = self._folder / "clients" / client_file(client, accepted)
        return read_tensors(file, initial, {"client": client, "round": accepted})

    def _read_manifest(self) -> Manifest:
        try:
            manifest = Manifest.model_validate_json(self._manifest.read_bytes())
        except FileNotFoundError as error:
            raise BrokenRun(f"{self._folder} holds no checkpoint to resume from") from error
        except (ValidationError, OSError) as error:
            raise BrokenRun(f"{self._manifest} is torn or was edited: it is not a checkpoint's JSON") from error
        if manifest.format != FORMAT:
            raise BrokenRun(f"{self._manifest} has format {manifest.format}; this fedopt reads format {FORMAT}")
        if manifest.sealed() != manifest:
            raise BrokenRun(f"{self._manifest} was edited: its checksum does not match")
        # Through Experiment, so that a key this version has added takes its default.
        changed = changes_between(Experiment(**manifest.experiment), self._experiment)
        if changed:
            raise InvalidExperiment(f"{changed[0]}; a run that is resumed may change {', '.join(_changeable())} alone")
        return manifest

    def _server_file(self, round_: int) -> Path:
        return self._folder / f"server-round-{round_:06d}.safetensors"


def changes_between(before: Experiment, now: Experiment) -> list[str]:
    """A clause for each key that has changed although a resumed run may not change it."""
    was, is_now = as_sections(before), as_sections(now)
    return [
        f"{section}.{key} was {was[section].get(key)!r} and is now {is_now[section].get(key)!r}"
        for section in was
        # A member's name first: its other keys change with it.
        for key in sorted(was[section].keys() | is_now[section].keys(), key=lambda key: (key != "name", key))
        if not _equal(was[section].get(key), is_now[section].get(key)) and key not in MAY_CHANGE.get(section, ())
    ]


def _equal(one: object, other: object) -> bool:
    """Equality of settings. Here nan equals nan: a user's own factory may take it."""
    return one == other or repr(one) == repr(other)


def _changeable() -> list[str]:
    return [f"{section}.{key}" for section, keys in MAY_CHANGE.items() for key in sorted(keys)]
