"""Every random stream of a run, keyed by (seed, purpose, ...): no draw depends on another's order.

A key names one stream for good: the minibatches of client 7 in round 3 are the same on any engine, with
any number of lanes or workers, resumed or not. Nothing reads or advances a global generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of every result: never renumber, only add."""

    DATA = 0
    PARTITION = 1
    WEIGHTS = 2
    COHORT = 3
    BATCHES = 4
    TEST_SHARES = 5
    CENTRAL = 6
    VALIDATION = 7
    DRAWS = 8
    """What a model draws in its forward pass: dropout."""
    VERIFICATION = 9
    """The parameters at which a backend is compared with autograd."""
    ALGORITHM = 10
    """What an algorithm draws on the server."""
    CHANNEL = 11
    """What a channel stage draws, on a client or on the server."""


def sequence(seed: int, purpose: Purpose, *key: int) -> np.random.SeedSequence:
    """The root of one stream."""
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *key))


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """A generator of its own for (seed, purpose, key)."""
    return np.random.Generator(np.random.PCG64(sequence(seed, purpose, *key)))


@contextmanager
def isolated(seed: int, purpose: Purpose, *key: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Within, code that insists on the global generators (initializers, dropout) finds them freshly keyed.

    On leaving, the generators of random, numpy and torch, and of these CUDA devices, are as they were.
    """
    word = int(sequence(seed, purpose, *key).generate_state(1, np.uint32)[0])
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(word)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(word)
        random.setstate(random.Random(word).getstate())
        np.random.set_state(np.random.RandomState(word).get_state())
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
