"""The random numbers that a model draws in training (dropout), keyed so that engine and lanes do not change them.

For each forward pass the global generators are seeded by (seed, round, client, kind of pass, step). A client therefore
draws the same numbers on any engine and beside any other lanes. Both gradients of a SAM step draw the same numbers:
they belong to one minibatch and one loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import IntEnum

import torch

from fedopt.seeding import Purpose, isolated


class Pass(IntEnum):
    """Which pass over the data draws. The numbers are part of every result: never change them, only add new ones."""

    STEPS = 0
    FULL_GRADIENT = 1


class LaneDraws:
    """Seeds the generators for one lane and one step."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._devices = [device] if device.type == "cuda" else []
        self._keys: list[tuple[int, int, int]] = []

    def begin(self, round_: int, clients: Sequence[int], reason: Pass) -> None:
        """Starts a round; `clients` are the clients of the lanes, in order."""
        self._keys = [(round_, client, int(reason)) for client in clients]

    def of(self, lane: int, step: int) -> AbstractContextManager[None]:
        """In this context the global generators are seeded for this lane's client and this step."""
        return isolated(self._seed, Purpose.DRAWS, *self._keys[lane], step, devices=self._devices)
