"""The port between the round loop and the clients, wherever they are.

The loop hands out work orders and gets updates back, in whatever order they arrive; it never learns
whether a client is a lane in this process, a Ray actor or a machine behind gRPC.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fedopt.vectors.layout import Vectors


@dataclass(frozen=True)
class WorkOrder:
    """What one client is asked to do in one round."""

    round: int
    client: int
    accepted: int | None
    """The last round whose update of this client the server aggregated; None before the first. The client
    keeps what it made in that round and drops whatever it made since: the server never used it."""
    x: Tensor
    """The global model, [P]."""
    down: Vectors
    """What the algorithm sends down beside it."""
    gradient: bool = False
    """Whether the client shall send the full gradient at x as well, for measures; it changes nothing else."""


@dataclass(frozen=True)
class Update:
    """What one client sends back."""

    round: int
    client: int
    samples: int
    steps: int
    loss: float
    """Mean training loss over the steps."""
    up: Vectors
    """What the algorithm sends up, [P] each."""
    bytes_down: int
    bytes_up: int
    told: Mapping[str, float] = field(default_factory=dict)
    """Numbers for the records: names of `Algorithm.tells`."""


@dataclass(frozen=True)
class Score:
    """A model on one client's own test share."""

    client: int
    samples: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Absence:
    """A client from which nothing will come this round."""

    client: int
    reason: str
    """A clause of which the client is the subject: "it ..."."""


class Federation(Protocol):
    """N clients, numbered from 0."""

    name: str
    """Which engine this is, for the records."""

    trains_ahead: bool
    """Whether a round may be trained while this process is still busy with the one before: others train, and what
    clients keep of two rounds has room."""

    @property
    def samples(self) -> Sequence[int]:
        """n_i for each client."""
        ...

    def train(self, orders: Sequence[WorkOrder]) -> Generator[Update | Absence, None, None]:
        """Carries out the orders of one round: yields an update or an absence for each client, as they come.

        Closing the generator early calls the rest of the work off.
        """
        ...

    def refused(self, client: int) -> None:
        """Tells that the update which just came of this client is not used."""
        ...

    def evaluate(self, x: Tensor, round_: int) -> Sequence[Score]:
        """The model of that round on the test share of each client that has one and can be asked."""
        ...

    def mean_kept(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> Vectors | None:
        """sum p_i v_i over all N clients for each vector that clients keep; None where they are out of sight."""
        ...

    def settle(self, accepted: Mapping[int, int], ahead: bool = False) -> None:
        """Tells which round's work of each client the server has accepted last; other work may be forgotten.

        With `ahead` the round after has been trained already, and its work must stay.
        """
        ...

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Stores what the clients keep, as of `accepted`, where the server is the one to store it.

        What an older checkpoint in the folder needs must stay until `prune`.
        """
        ...

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Removes from the folder what `accepted` no longer needs."""
        ...

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Loads what `save` stored."""
        ...


def payload(*vectors: Vectors) -> int:
    """Bytes of the vectors alone."""
    return sum(vector.nbytes for group in vectors for vector in group.values())
