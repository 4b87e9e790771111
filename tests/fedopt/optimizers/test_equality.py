"""Every optimizer equals its reference on each of several ragged clients: see `equality`, which also prints a table."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from clients.lanes.backends import Backend
from tests.fedopt.optimizers.equality import CASES, compare, places, tolerance

PRODUCT = [(case, *place) for case in CASES for place in places(case)]
ELSEWHERE = ("sgd", "sgd-momentum", "nesterov-torch", "adam", "adamw", "amsgrad", "sam", "asam")
"""Cases that other quick tests have too."""
QUICK = {
    (case, *places(case)[number % len(places(case))]) for number, case in enumerate(CASES) if case not in ELSEWHERE
}
"""Each other optimizer in one place."""


@pytest.mark.parametrize(
    ("case", "backend", "model"),
    [pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow) for one in PRODUCT],
)
def test_lanes_equal_the_reference_on_each_client_alone(case: str, backend: Backend, model: str) -> None:
    if case == "kfac" and find_spec("curvlinops") is None:
        pytest.skip("needs curvlinops, of the extra kfac")
    assert compare(case, backend, model) < tolerance(case)
