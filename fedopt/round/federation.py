"""The port between the round loop and the clients, wherever they are.

The loop broadcasts a model with an order for each client of the round, and gets updates back in whatever order they
arrive. It never learns whether a client is a lane in this process, a Ray actor or a machine behind gRPC.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fedopt.schedules.plan import NO_FACTORS, RateFactors
from fedopt.vectors.layout import Vectors


@dataclass(frozen=True)
class Broadcast:
    """What all clients of a round get."""

    round: int
    """From 1."""
    x: Tensor
    """The global model, [P]; with BatchNorm's running statistics behind it, as every vector here, [P + S]."""
    down: Vectors = field(default_factory=dict)
    """What the algorithm sends down beside it, [P] each."""
    gradient: bool = False
    """Whether clients send the full gradient at x as well, for measures; it changes nothing else."""
    survey: bool = False
    """Whether clients send nothing but the full gradient at x: they take no step and keep no new state. The round's
    broadcast with work follows."""
    factors: RateFactors = NO_FACTORS
    """What the rates of this round are multiplied by."""


@dataclass(frozen=True)
class WorkOrder:
    """What is one client's own in a round's order."""

    client: int
    accepted: int | None
    """The last round whose update of this client the server aggregated; None before the first. The client promotes the
    state that it made in that round and drops whatever it made since: the server never used it."""


@dataclass(frozen=True)
class Numbers:
    """The scalars of one client's work in one round."""

    samples: int
    """n_i, what the client counts by."""
    steps: int
    """Local steps that it took."""
    loss: float
    """Mean training loss over these steps."""
    own: Mapping[str, float] = field(default_factory=dict)
    """The algorithm's, by name: `sends_numbers`, and fields of its record."""


@dataclass(frozen=True)
class Update:
    """What one client sends back."""

    round: int
    client: int
    numbers: Numbers
    up: Vectors
    """What the algorithm sends up, [P] each, as the channel delivers it."""
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True)
class Score:
    """A model on one client's own test share."""

    client: int
    samples: int
    loss: float
    accuracy: float | None
    """None where targets are numbers."""


@dataclass(frozen=True)
class Absence:
    """A client that sends no update this round."""

    client: int
    reason: str
    """A clause of which the client is the subject: "it ..."."""


class Federation(Protocol):
    """N clients, numbered from 0."""

    name: str
    """Which engine this is, for the records."""

    trains_ahead: bool
    """Whether a round may be trained while this process is still evaluating the one before: other processes train, and
    there is memory for the client states of two rounds."""

    @property
    def samples(self) -> Sequence[int]:
        """n_i for each client."""
        ...

    def train(self, broadcast: Broadcast, orders: Sequence[WorkOrder]) -> Generator[Update | Absence, None, None]:
        """Carries out the orders of one round: yields an update or an absence for each client, as they arrive.

        Closing the generator early cancels the rest of the work.
        """
        ...

    def refused(self, client: int) -> None:
        """Reports that the update that was yielded last, this client's, is not used."""
        ...

    def evaluate(self, x: Tensor, round_: int, accepted: Mapping[int, int]) -> Sequence[Score]:
        """The model of that round on the test share of each client that has one and is connected; the client's personal
        model if the algorithm has such. `accepted` says which state of each client counts."""
        ...

    def mean_state(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> Vectors | None:
        """sum p_i v_i over all N clients for each vector that clients keep; None where the server cannot see them."""
        ...

    def commit(self, accepted: Mapping[int, int], ahead: bool = False) -> None:
        """Reports which round's work of each client the server has accepted last; other states may be dropped.

        With `ahead` the next round has been trained already, and its states must stay.
        """
        ...

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Stores the client states of `accepted`, where it is the server's process that holds them.

        Files that an older checkpoint in the folder needs must stay until `prune`.
        """
        ...

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Removes files from the folder that `accepted` no longer needs."""
        ...

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Loads what `save` stored."""
        ...
