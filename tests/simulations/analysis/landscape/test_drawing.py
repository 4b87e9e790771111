"""How losses are drawn."""

from __future__ import annotations

import numpy as np

from simulations.analysis.landscape.drawing import grid_of, is_logarithmic, round_numbers, said_of


def test_the_scale_is_logarithmic_where_positive_losses_span_more_than_a_factor_of_20() -> None:
    assert is_logarithmic(grid_of([[0.1, 2.1]]))
    assert not is_logarithmic(grid_of([[0.1, 2.0]]))
    assert not is_logarithmic(grid_of([[0.0, 2.0]]))
    assert not is_logarithmic(grid_of([[-1.0, 100.0]]))
    assert is_logarithmic(grid_of([[0.1, float("inf")], [float("nan"), 2.1]])), "gaps do not count"
    assert not is_logarithmic(grid_of([[float("nan")]]))
    assert said_of("test", grid_of([[0.1, 2.1]])) == "test loss, logarithmic scale"
    assert said_of("test", grid_of([[0.1, 0.2]])) == "test loss"


def test_ticks_are_round_numbers_within_the_range() -> None:
    assert round_numbers(0.15, 6.0) == [0.2, 0.5, 1.0, 2.0, 5.0]
    many = round_numbers(1e-12, 1e12)
    assert len(many) <= 7
    assert np.allclose(np.diff(np.log10(many)), 4)
