"""A fixed sample of the fuzz: 15 random experiments agree with the reference, 40 in `make test-slow`.

`make fuzz` runs as many as requested.
"""

from __future__ import annotations

import pytest

from tests.fuzz.judging import settle

SEED = 15
EACH, ALWAYS, ITEMS = 5, 3, 8


@pytest.mark.parametrize(
    "first",
    [pytest.param(EACH * item, marks=[] if item < ALWAYS else [pytest.mark.slow]) for item in range(ITEMS)],
)
def test_random_experiments_agree_with_the_reference(first: int) -> None:
    for index in range(first, first + EACH):
        result = settle(SEED, index)
        assert result.agrees, f"python -m tests.fuzz --case {result.name}: {result.model}: {result.complaints}"
