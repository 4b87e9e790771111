"""A deployed client's state between rounds, in files, so that it survives the client's process.

    DIR/FEDERATION/client-000003-round-000012.safetensors

Each file is one version, named by the round that made it and written atomically. The server decides which version
counts, as in `clients.lanes.state`. The version that the server's last checkpoint refers to is kept too, because a
killed server resumes from there.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedopt.errors import BrokenRun, NotStored
from fedopt.storage.files import storing
from fedopt.storage.tensor_file import read_tensors, write_tensors
from fedopt.vectors.layout import Vectors


class DurableState:
    """The state versions of one client of one federation."""

    def __init__(self, folder: Path, federation: str, client: int, initial: Vectors) -> None:
        """`initial` is the state before the client's first round. If it is empty, nothing is ever written."""
        if not re.fullmatch(r"[0-9a-z]{1,64}", federation):  # it comes from the network and names a folder
            raise BrokenRun(f"{federation!r} cannot name a federation")
        self._folder, self._client, self._initial = folder / federation, client, initial

    def at(self, accepted: int | None) -> Vectors:
        """The state to continue from, given the last round in which the server accepted this client's update."""
        if accepted is None or not self._initial:
            return self._initial
        file = self._file(accepted)
        if not file.exists():
            raise BrokenRun(
                f"client {self._client} has no state from round {accepted}, which the server has aggregated; it has "
                f"{', '.join(map(str, self._rounds())) or 'none'} in {self._folder}; restore its --state folder"
            )
        return read_tensors(file, self._initial, {"client": self._client, "round": accepted})

    def put(self, round_: int, keep: Vectors) -> None:
        """Stores the version made in this round, completely or not at all."""
        if not keep:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotStored(f"{self._folder} cannot be created: {error.strerror}") from error
        with storing(self._folder):
            write_tensors(self._file(round_), keep, {"client": self._client, "round": round_})

    def keep_only(self, rounds: set[int]) -> None:
        """Deletes every version except those of `rounds`."""
        with storing(self._folder):
            for round_ in self._rounds():
                if round_ not in rounds:
                    self._file(round_).unlink(missing_ok=True)

    def _rounds(self) -> list[int]:
        stem = f"client-{self._client:06d}-round-"
        return sorted(
            int(file.stem.removeprefix(stem))
            for file in self._folder.glob(f"{stem}*.safetensors")
            if file.stem.removeprefix(stem).isdigit()
        )

    def _file(self, round_: int) -> Path:
        return self._folder / f"client-{self._client:06d}-round-{round_:06d}.safetensors"
