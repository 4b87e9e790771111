"""Every optimizer equals its reference on each of several ragged clients: see `equality`, which also prints a table."""

from __future__ import annotations

import pytest

from clients.lanes.backends import Backend
from tests.fedopt.optimizers.equality import BACKENDS, CASES, MODELS, compare, tolerance

PRODUCT = [(case, backend, model) for case in CASES for backend in BACKENDS for model in MODELS]
OTHERS = [(backend, model) for backend in BACKENDS for model in MODELS if (backend, model) != ("stacked", "mlp")]
QUICK = [(case, "stacked", "mlp") for case in CASES] + [
    (case, *OTHERS[place % len(OTHERS)]) for place, case in enumerate(CASES)
]
"""Each optimizer in two places, and each place with some optimizer."""


@pytest.mark.parametrize(
    ("case", "backend", "model"),
    [pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow) for one in PRODUCT],
)
def test_lanes_equal_the_reference_on_each_client_alone(case: str, backend: Backend, model: str) -> None:
    assert compare(case, backend, model) < tolerance(case)
