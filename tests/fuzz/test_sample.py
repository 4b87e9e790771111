"""A fixed sample of the fuzz: 40 random experiments agree with the reference; `make fuzz` runs as many as requested."""

from __future__ import annotations

import pytest

from tests.fuzz.judging import settle

SEED = 15
EACH, ITEMS = 5, 8


@pytest.mark.parametrize("first", range(0, EACH * ITEMS, EACH))
def test_random_experiments_agree_with_the_reference(first: int) -> None:
    for index in range(first, first + EACH):
        result = settle(SEED, index)
        assert result.agrees, f"python -m tests.fuzz --case {result.name}: {result.model}: {result.complaints}"
