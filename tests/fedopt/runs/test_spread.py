"""Spread over clients, classes and labels, by hand and against scipy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from fedopt.data.dataset import Dataset
from fedopt.data.evaluation_shares import apportion, owners_of_tests
from fedopt.data.label_skew import LabelSkew
from fedopt.round.federation import Score
from fedopt.runs.spread import best_so_far, spread_over_classes, spread_over_clients

COUNTS = arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, 50)).filter(
    lambda counts: bool(counts.sum(axis=1).all())
)


def test_mean_worst_tenth_and_deviation_over_clients() -> None:
    """Twenty clients at 0, 0.05, ..., 0.95: the worst two have 0.025; client 20 has no test share."""
    scores = [Score(client, 10, 1.0 + client, client / 20) for client in reversed(range(20))]
    found = spread_over_clients(scores, 21)
    assert found is not None
    assert found.mean == pytest.approx(0.475)
    assert found.worst == pytest.approx(0.025)
    assert found.deviation == pytest.approx(math.sqrt((20**2 - 1) / 12) / 20)  # of a uniform distribution on a grid
    assert found.mean_loss == pytest.approx(10.5)
    assert found.accuracy == [client / 20 for client in range(20)] + [None]
    assert found.loss[3] == 4.0
    assert found.loss[20] is None


def test_nobody_to_ask_is_no_spread() -> None:
    assert spread_over_clients([], 3) is None
    assert spread_over_clients([Score(0, 1, math.inf, 0.5)], 3) is None


def test_forgetting_is_the_best_so_far_minus_now() -> None:
    best: list[float | None] = []
    expected = [([0.0, 0.0, None], 0.0), ([0.5, 0.0, None], 0.25), ([0.4, 0.1, None], 0.25)]
    for now, (forgetting, mean) in zip([[0.9, 0.2, None], [0.4, 0.3, None], [0.5, 0.2, None]], expected, strict=True):
        best = best_so_far(best, now)
        found = spread_over_classes(now, best)
        assert found is not None
        assert found.forgetting == pytest.approx(forgetting)
        assert found.mean_forgetting == pytest.approx(mean)
        assert found.accuracy[2] is None
        assert found.worst == min(accuracy for accuracy in now if accuracy is not None)


@given(counts=COUNTS)
def test_label_measures_agree_with_scipy(counts: np.ndarray) -> None:
    skew = LabelSkew(counts)
    q, overall = counts / counts.sum(axis=1, keepdims=True), counts.sum(axis=0) / counts.sum()
    assert skew.entropies == pytest.approx(entropy(q, base=2, axis=1), abs=1e-12)
    assert skew.effective_classes == pytest.approx(2 ** entropy(q, base=2, axis=1), abs=1e-9)
    # the root takes rounding of 1e-16 to 1e-8
    assert skew.divergences == pytest.approx([jensenshannon(row, overall, base=2) for row in q], abs=1e-7, nan_ok=True)


def test_label_measures_of_two_clients_with_nothing_in_common() -> None:
    spread = LabelSkew(np.array([[10, 0], [0, 10]])).spread(("cat", "dog"))
    assert spread.entropy == [0, 0]
    assert spread.effective_classes == [1, 1]
    assert spread.total_variation == [0.5, 0.5]
    # m = (3/4, 1/4): JSD = 1/2 log2(4/3) + 1/2 (1/2 log2(2/3) + 1/2 log2(2))
    expected = math.sqrt(0.5 * math.log2(4 / 3) + 0.25 * math.log2(2 / 3) + 0.25)
    assert spread.jensen_shannon == pytest.approx([expected] * 2)
    assert spread.classes == ["cat", "dog"]


@given(seats=st.integers(0, 300), weights=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any))
@example(seats=21, weights=[39, 10, 17])  # ties of remainders that rounding would break
@example(seats=48, weights=[4, 22, 10])
@example(seats=154, weights=[25, 20, 4])
def test_seats_go_to_the_largest_remainders_in_exact_arithmetic(seats: int, weights: list[int]) -> None:
    exact = [Fraction(seats * weight, sum(weights)) for weight in weights]
    expected = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda client: (expected[client] - exact[client], client))
    for client in by_remainder[: seats - sum(expected)]:
        expected[client] += 1
    assert apportion(seats, np.array(weights)).tolist() == expected


def test_each_test_sample_is_one_client_s_and_classes_go_where_they_are_trained_on() -> None:
    """Client 0 holds three quarters of class 0, client 2 all of class 1; nobody trains on class 2."""
    y_train = torch.tensor([0] * 8 + [1] * 4)
    parts = [np.arange(6), np.arange(6, 8), np.arange(8, 12)]
    y_test = torch.tensor([0] * 40 + [1] * 10 + [2] * 12)
    data = Dataset(torch.zeros(12, 1), y_train, torch.zeros(62, 1), y_test, classes=3)
    owners = owners_of_tests(data, parts, seed=0)
    assert np.bincount(owners[:40], minlength=3).tolist() == [30, 10, 0]
    assert np.bincount(owners[40:50], minlength=3).tolist() == [0, 0, 10]
    assert np.bincount(owners[50:], minlength=3).tolist() == [6, 2, 4]
    assert np.array_equal(owners, owners_of_tests(data, parts, seed=0))
    assert not np.array_equal(owners, owners_of_tests(data, parts, seed=1))
