"""Every random stream of a run, keyed by (seed, purpose, ...), so that no draw depends on the order of others.

The same key always gives the same stream: the minibatches of client 7 in round 3 are the same on any engine, with any
number of lanes or workers, resumed or not. No code reads or advances a global generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of every result: add new ones, never change old ones."""

    DATA = 0
    PARTITION = 1
    WEIGHTS = 2
    COHORT = 3
    BATCHES = 4
    TEST_SHARES = 5
    CENTRAL = 6
    VALIDATION = 7
    DRAWS = 8
    """Random numbers of a model's forward pass: dropout."""
    VERIFICATION = 9
    """The parameters at which a backend is compared with autograd."""
    ALGORITHM = 10
    """Random numbers of an algorithm on the server."""
    CHANNEL = 11
    """Random numbers of a channel stage, on a client or on the server."""
    WORK = 12
    """How much local work a client does in a round."""
    AUGMENTATION = 13
    """Crops and flips of a client's images."""


def sequence(seed: int, purpose: Purpose, *key: int) -> np.random.SeedSequence:
    """The seed sequence of one stream."""
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *key))


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """A new generator for (seed, purpose, key)."""
    return np.random.Generator(np.random.PCG64(sequence(seed, purpose, *key)))


@contextmanager
def isolated(seed: int, purpose: Purpose, *key: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Seeds the global generators by the key, for code that uses them (initializers, dropout), and restores them.

    These are the generators of random, numpy and torch, and of the given CUDA devices.
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
