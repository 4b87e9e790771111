"""The random numbers that a model draws while it trains (dropout), keyed so that engine and lanes do not change them.

Each forward pass finds the global generators keyed by (seed, round, client, which pass, step). A client therefore draws
the same numbers on any engine, whatever trains beside it. Both gradients of a SAM step draw the same ones: they belong
to one minibatch and one loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import IntEnum

import torch

from fedopt.seeding import Purpose, isolated


class Pass(IntEnum):
    """Why the model runs. The numbers are part of every result: never renumber, only add."""

    STEPS = 0
    FULL_GRADIENT = 1


class LaneDraws:
    """Keys the generators for one lane and step at a time."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._devices = [device] if device.type == "cuda" else []
        self._keys: list[tuple[int, int, int]] = []

    def begin(self, round_: int, clients: Sequence[int], reason: Pass) -> None:
        """`clients` are those of the lanes, in order."""
        self._keys = [(round_, client, int(reason)) for client in clients]

    def of(self, lane: int, step: int) -> AbstractContextManager[None]:
        """Within, the global generators are those of this lane's client at this step."""
        return isolated(self._seed, Purpose.DRAWS, *self._keys[lane], step, devices=self._devices)
