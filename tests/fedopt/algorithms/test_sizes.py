"""Algorithms stay short enough to be read against their papers."""

from __future__ import annotations

import pytest

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from tests.docs.family import code_lines

LIMITS = {"fedavg": 40, "scaffold": 60}
"""Lines of code below which an algorithm stays; 100 for the others."""


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_is_short(name: str) -> None:
    kind = ALGORITHMS.resolve(name)
    assert issubclass(kind, Algorithm)
    assert 1 < code_lines(kind) < LIMITS.get(name, 100)
