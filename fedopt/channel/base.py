"""The contract of channel stages: compression, clipping, noise between a client's `finish` and the server's `advance`.

A client sends named arrays, its payload, through the stages in order; the server receives it through them in reverse
order, before the update is admitted, and releases the totals through them in order. A simulation does the same, so that
it learns what a deployment learns and counts the bytes of what would travel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from fedopt.channel import STAGES
from fedopt.family import Family
from fedopt.registry import Registry
from fedopt.seeding import Purpose, stream
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals

Payload = Mapping[str, Tensor]
"""Named arrays of any dtype and shape: what really travels. Before the first stage, vectors [P]."""


class BadPayload(ValueError):
    """A payload that its stage cannot have sent; the message is a clause about it."""


@dataclass(frozen=True)
class ChannelKey:
    """Which stage, round and client draws random numbers."""

    seed: int
    round: int
    stage: int
    client: int | None = None
    """None for what the server draws."""

    def stream(self, *key: int) -> np.random.Generator:
        """A random stream of its own: the same on any engine, resumed or not."""
        client = () if self.client is None else (self.client,)
        return stream(self.seed, Purpose.CHANNEL, self.round, self.stage, *client, *key)


class Stage(Family, ABC):
    """Base of all stages; its fields are the keys of its table in [channel] stages."""

    registry: ClassVar[Registry] = STAGES

    def client_state(self, like: Vectors) -> Vectors:
        """Vectors [P] that a client keeps between rounds, before its first one: error feedback lives here.

        `like` are the vectors that the algorithm sends up.
        """
        return {}

    @abstractmethod
    def send(self, payload: Payload, state: Vectors, key: ChannelKey) -> tuple[Payload, Vectors]:
        """On a client: what travels in place of `payload`, and the client's new state."""

    @abstractmethod
    def receive(self, payload: Payload, like: Vectors) -> Payload:
        """On the server: `payload` as it was before `send`, or its approximation. BadPayload if it cannot be one.

        The payload comes from the network and may be anything within its size. `like` are vectors [P] of the names that
        the algorithm sends up.
        """

    def release(self, totals: Totals, key: ChannelKey) -> Totals:
        """On the server, after the updates were gathered: noise, rescaling."""
        return totals

    def why_not_after(self, earlier: Sequence[Stage]) -> str | None:
        """Why this stage cannot follow these, as a clause; None if it can."""
        return None
