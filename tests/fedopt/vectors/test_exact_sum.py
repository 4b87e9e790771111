"""Sums of updates: right, and the same to the last bit in any order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedopt.round.gathering.mean import MeanCollector
from fedopt.vectors.exact_sum import CHUNK, LARGEST

values = st.floats(-1e6, 1e6) | st.floats(-1e-9, 1e-9) | st.floats(-float(2**31), float(2**31))


@settings(deadline=None)
@given(st.data(), st.sampled_from(["float32", "float64"]), st.integers(1, 12))
def test_any_order_gives_the_same_bits(data: st.DataObject, dtype: str, clients: int) -> None:
    vectors = [
        torch.tensor(data.draw(st.lists(values, min_size=3, max_size=3)), dtype=getattr(torch, dtype))
        for _ in range(clients)
    ]
    weights = data.draw(st.lists(st.floats(1e-6, 1.0), min_size=clients, max_size=clients))
    weights = [weight / sum(weights) for weight in weights]

    def total(order: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        collector = MeanCollector()
        for i in order:
            collector.fold(0, {"v": vectors[i]}, {}, weights[i])
        return collector.totals().sum("v"), collector.totals().mean("v")

    reference = total(list(range(clients)))
    for _ in range(3):
        shuffled = total(data.draw(st.permutations(range(clients))))
        assert all(a.equal(b) for a, b in zip(shuffled, reference, strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(values, st.floats(1e-6, 0.05)), min_size=1, max_size=20))
def test_the_sum_is_that_of_exact_arithmetic(terms: list[tuple[float, float]]) -> None:
    collector = MeanCollector()
    for value, weight in terms:
        collector.fold(0, {"v": torch.tensor([value], dtype=torch.float64)}, {}, weight)
    exact = sum((Fraction(value) * Fraction(weight) for value, weight in terms), Fraction(0))
    share = sum((Fraction(weight) for _, weight in terms), Fraction(0))
    # Each product is rounded once to float64, each term once to units of 2^-56, the sum once.
    slack = sum(2.0**-53 * abs(value * weight) + 2.0**-56 for value, weight in terms) + 2.0**-52 * abs(exact)
    assert abs(Fraction(collector.totals().sum("v").item()) - exact) <= slack
    assert collector.totals().mean("v").item() == pytest.approx(
        float(exact / share), rel=1e-12, abs=float(slack / share)
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weight", [1e-6, 0.03, 1.0])
@pytest.mark.parametrize("exponents", [(0, 1), (-6, 1), (-3, 8)])
def test_the_sum_is_that_of_whole_numbers_whatever_was_carried(
    seed: int, weight: float, exponents: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.uniform(-0.1, 1.0, (400, 3)) * 10.0 ** rng.integers(*exponents, (400, 1))
    weights = weight * rng.uniform(0.5, 1.0, 400)
    collector = MeanCollector()
    collector.fold(0, {"v": torch.ones(3, dtype=torch.float64)}, {}, 1.0)
    collector.begin()  # nothing of the round before is left
    for vector, own in zip(vectors, weights.tolist(), strict=True):
        collector.fold(0, {"v": torch.from_numpy(vector)}, {}, own)
    # Python's integers have no limbs; `round` goes to the even one as float64 does.
    units = [sum(round(Fraction(v * w) * 2**56) for v, w in zip(column, weights, strict=True)) for column in vectors.T]
    assert collector.totals().sum("v").tolist() == [float(Fraction(total, 2**56)) for total in units]


def test_long_vectors_are_summed_whole() -> None:
    length = 2 * CHUNK + 17
    first, second = (torch.from_numpy(np.random.default_rng(i).standard_normal(length)) for i in (1, 2))
    collector = MeanCollector()
    collector.fold(0, {"v": first}, {}, 0.25)
    collector.fold(0, {"v": second}, {}, 0.75)
    assert torch.allclose(collector.totals().mean("v"), 0.25 * first + 0.75 * second, rtol=1e-15, atol=1e-16)


def test_the_largest_entries_that_are_admitted_are_still_exact() -> None:
    largest = float(np.nextafter(LARGEST, 0))
    collector = MeanCollector()
    for _ in range(4):
        collector.fold(0, {"v": torch.tensor([largest, -largest], dtype=torch.float64)}, {}, 0.25)
    assert collector.totals().sum("v").tolist() == [largest, -largest]


def test_small_updates_are_not_lost() -> None:
    collector = MeanCollector()
    small = torch.full((1,), 2.0**-40, dtype=torch.float64)
    for _ in range(10_000):
        collector.fold(0, {"v": small}, {}, 1e-4)
    assert collector.totals().sum("v").item() == pytest.approx(2.0**-40, rel=1e-3)
