"""An amount of local work: a number, or a range from which every client draws in every round."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_RANGE = re.compile(r"uniform\(\s*(\d+)\s*,\s*(\d+)\s*\)")


def _checked(given: Any) -> Any:
    if given is None:
        return None
    if isinstance(given, str) and (found := _RANGE.fullmatch(given.strip())):
        low, high = map(int, found.groups())
        if not 1 <= low <= high:
            raise ValueError(f'must be "uniform(LOW, HIGH)" with 1 <= LOW <= HIGH, not {given!r}')
        return f"uniform({low}, {high})"
    if not isinstance(given, int) or isinstance(given, bool):
        raise ValueError(f'must be a whole number or "uniform(LOW, HIGH)", not {given!r}')
    if given < 1:
        raise ValueError(f"must be greater than or equal to 1, not {given}")
    return given


Amount = Annotated[
    int | str,
    BeforeValidator(_checked),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "uniform(LOW, HIGH)"}]}),
]
"""At least 1, or "uniform(LOW, HIGH)": whole numbers from LOW to HIGH, both included, all equally likely."""


def bounds(amount: int | str) -> tuple[int, int]:
    """The smallest and the largest number that the amount may be."""
    if isinstance(amount, int):
        return amount, amount
    found = _RANGE.fullmatch(amount)
    assert found is not None
    return int(found[1]), int(found[2])
