"""Client states between rounds, with the promote-or-drop rule.

Each round's work leaves a version of the client's state, named by the round. The server decides which version counts:
every work order names the last round that it accepted of this client. That version is promoted and any other is
dropped, so a client whose update never reached the model does not continue from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from clients.lanes.vector_pool import VectorPool
from fedopt.errors import BrokenRun
from fedopt.storage.tensor_file import client_file, read_tensors, write_tensors
from fedopt.vectors.exact_sum import ExactSum
from fedopt.vectors.layout import Vectors

Version = tuple[int, int]
"""(client, round)"""


class ClientStates:
    """The versions of all clients of one process; vectors are [P]."""

    def __init__(self, initial: Vectors, stores: Mapping[str, Tensor] | None = None) -> None:
        """`initial` is the state before a client's first round; `stores` [rows, P] are the memory to use, if given."""
        self._initial = initial
        self._versions: dict[int, dict[int, dict[str, Tensor]]] = {}
        self._stored: set[Version] = set()
        self._pools = {name: VectorPool(vector, (stores or {}).get(name)) for name, vector in initial.items()}

    def at(self, client: int, accepted: int | None) -> Vectors:
        """The state that the client continues from, given the last round that the server accepted of it."""
        if accepted is None or not self._initial:
            return self._initial
        versions = self._versions.get(client, {})
        if accepted not in versions:
            raise BrokenRun(
                f"client {client} has no state from round {accepted}, which the server has aggregated; "
                f"it has {sorted(versions) or 'none'}"
            )
        return versions[accepted]

    def put(self, client: int, round_: int, state: Vectors) -> None:
        """Adds the version made in this round; the vectors are copied out of the lanes."""
        self.adopt(client, round_, {name: buffer.copy_(state[name]) for name, buffer in self.buffers().items()})

    def buffers(self) -> dict[str, Tensor]:
        """Vectors that a new version may be written to."""
        return {name: pool.take() for name, pool in self._pools.items()}

    def adopt(self, client: int, round_: int, written: dict[str, Tensor]) -> None:
        """Adds the version made in this round, which was written to `buffers`."""
        if written:
            self._versions.setdefault(client, {})[round_] = written

    def release(self, buffers: Vectors) -> None:
        """Takes back buffers that hold no version any more."""
        for name, vector in buffers.items():
            self._pools[name].release(vector)

    def rows(self, vectors: Vectors) -> dict[str, int]:
        """The rows of the stores in which the vectors lie."""
        return {name: self._pools[name].row_of(vector) for name, vector in vectors.items()}

    def mean(
        self, accepted: Mapping[int, int], share_of: Sequence[float], untouched: float | None = None
    ) -> dict[str, Tensor]:
        """sum p_i v_i over all clients of the versions that count, in float64, whatever their order.

        `untouched` is the share of the clients that are still in the initial state: all others, by default.
        """
        return {name: exact.total() for name, exact in self.sums(accepted, share_of, untouched).items()}

    def sums(
        self, accepted: Mapping[int, int], share_of: Sequence[float], untouched: float | None = None
    ) -> dict[str, ExactSum]:
        """The same as exact sums, to which those of other processes can be added."""
        if untouched is None:
            untouched = untouched_share(accepted, share_of)
        sums = {name: ExactSum(vector) for name, vector in self._initial.items()}
        for name, vector in self._initial.items():
            sums[name].add(vector, untouched)
        for client in sorted(accepted):
            for name, vector in self.at(client, accepted[client]).items():
                sums[name].add(vector, share_of[client])
        return sums

    def commit(self, accepted: Mapping[int, int], ahead: bool = False) -> None:
        """Promotes the accepted version of every client and drops the rest; if `ahead`, not those of later rounds."""
        latest = max(accepted.values(), default=0) if ahead else math.inf
        for client, versions in self._versions.items():
            for round_ in [made for made in versions if made != accepted.get(client) and made <= latest]:
                self.release(versions.pop(round_))

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Writes the accepted versions that are not in `folder` yet. Older files stay until `prune`."""
        for client, versions in self._versions.items():
            round_ = accepted.get(client)
            if round_ in versions and (client, round_) not in self._stored:
                folder.mkdir(parents=True, exist_ok=True)
                about = {"client": client, "round": round_}
                write_tensors(folder / client_file(client, round_), versions[round_], about)
                self._stored.add((client, round_))

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Removes files of versions that no longer count, once the checkpoint that says so is in place."""
        live = {client_file(client, round_) for client, round_ in accepted.items()}
        for file in folder.glob("*"):
            if file.name not in live:  # an old version, or the draft of a write that was killed
                file.unlink()
        self._stored &= set(accepted.items())

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Loads the accepted version of every client that has taken part."""
        self._versions.clear()
        for client, round_ in accepted.items() if self._initial else ():
            about = {"client": client, "round": round_}
            self.put(client, round_, read_tensors(folder / client_file(client, round_), self._initial, about))
        self._stored = set(accepted.items()) if self._initial else set()


def untouched_share(accepted: Mapping[int, int], share_of: Sequence[float]) -> float:
    """The share of the clients that have not taken part yet."""
    return 1.0 - math.fsum(share_of[client] for client in accepted)
