"""Streams are keyed and independent; the global generators are left as they were."""

from __future__ import annotations

import random

import numpy as np
import torch

from fedopt.seeding import Purpose, isolated, stream


def test_a_stream_is_a_function_of_its_key() -> None:
    keys: list[tuple[int, Purpose, int, int]] = [
        (0, Purpose.BATCHES, 1, 2),
        (0, Purpose.BATCHES, 2, 1),
        (1, Purpose.BATCHES, 1, 2),
        (0, Purpose.COHORT, 1, 2),
    ]
    drawn = [tuple(stream(*key).integers(0, 2**62, 4)) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [tuple(stream(*key).integers(0, 2**62, 4)) for key in keys]


def test_the_key_is_numpys_seed_sequence() -> None:
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(7, spawn_key=(4, 3, 9))))
    assert stream(7, Purpose.BATCHES, 3, 9).integers(2**40) == expected.integers(2**40)


def test_isolated_code_finds_keyed_generators_and_leaves_no_trace() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    undisturbed = draws(), draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    first = draws()
    with isolated(3, Purpose.WEIGHTS):
        inside = draws()
    assert (first, draws()) == undisturbed
    with isolated(3, Purpose.WEIGHTS):
        assert draws() == inside
    with isolated(4, Purpose.WEIGHTS):
        assert draws() != inside
    with isolated(3, Purpose.DATA):
        assert not set(draws()) & set(inside)
