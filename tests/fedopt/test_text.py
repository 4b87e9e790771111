"""Numbers of things, in the singular and the plural."""

from __future__ import annotations

import pytest

from fedopt.text import count


@pytest.mark.parametrize(
    ("number", "thing", "things", "text"),
    [
        (0, "round", "", "0 rounds"),
        (1, "round", "", "1 round"),
        (2, "round", "", "2 rounds"),
        (1, "process", "processes", "1 process"),
        (3, "process", "processes", "3 processes"),
        ("2-5", "epoch", "", "2-5 epochs"),
    ],
)
def test_one_of_a_thing_has_no_plural(number: int | str, thing: str, things: str, text: str) -> None:
    assert count(number, thing, things) == text
