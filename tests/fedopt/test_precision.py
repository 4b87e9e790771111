"""Operands of products, rounded: to nearest, ties to even, as IEEE 754 would with fewer bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.precision import ROUND_OFF, Products, on_gpu, rounded

BITS = {"tf32": 11, "bf16": 8}
"""Significant bits, the leading one included, as the makers of the hardware give them."""

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
kinds: st.SearchStrategy[Products] = st.sampled_from(["tf32", "bf16"])


def by_the_book(number: float, bits: int) -> float:
    mantissa, exponent = math.frexp(number)
    return math.ldexp(float(np.rint(mantissa * 2**bits)), exponent - bits)  # rint: ties to even


@given(st.lists(numbers, min_size=1, max_size=20), kinds)
def test_each_number_is_the_nearest_of_so_many_bits(values: list[float], kind: Products) -> None:
    found = rounded(torch.tensor(values), kind)
    for value, number in zip(values, found.tolist(), strict=True):
        expected = by_the_book(value, BITS[kind])
        if abs(expected) > torch.finfo(torch.float32).max:
            expected = math.copysign(math.inf, expected)
        assert number == expected
        if math.isfinite(number):
            assert abs(number - value) <= ROUND_OFF[kind] * abs(value)


@pytest.mark.parametrize("kind", ["tf32", "bf16"])
def test_the_largest_error_is_met_and_ties_go_to_even(kind: Products) -> None:
    half = ROUND_OFF[kind]
    found = rounded(torch.tensor([1 + half, 1 + 3 * half, -1 - half, 1 + 2 * half]), kind)
    assert found.tolist() == [1.0, 1 + 4 * half, -1.0, 1 + 2 * half]


@pytest.mark.parametrize("kind", ["tf32", "bf16"])
def test_what_is_no_number_stays_none(kind: Products) -> None:
    found = rounded(torch.tensor([math.inf, -math.inf, math.nan, 0.0]), kind)
    assert found[:2].tolist() == [math.inf, -math.inf]
    assert found[2].isnan()
    assert found[3] == 0


def test_gaps_in_memory_stay() -> None:
    x = torch.randn(3, 16)[:, :10].view(3, 2, 5).transpose(1, 2)
    assert rounded(x, "tf32").stride() == x.stride()


@pytest.mark.parametrize(("products", "allowed"), [("full", False), ("bf16", False), ("tf32", True)])
def test_a_gpu_uses_tf32_when_asked_only(products: Products, allowed: bool) -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with on_gpu(products):
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
        assert torch.backends.cudnn.allow_tf32 is allowed
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_float64_is_not_rounded() -> None:
    with pytest.raises(InvalidExperiment, match=r"run.products: bf16 rounds float32, not float64"):
        Experiment(run={"products": "bf16", "dtype": "float64"})
