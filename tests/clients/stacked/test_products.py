"""Products of lanes by either BLAS: right, the same bits in any company, and alone on their thread."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import LibController
from torch import Tensor

from clients.lanes.storage import Scratch
from clients.stacked import products
from clients.stacked.products import adding_product, in_one_thread, numpy_blas, plain_product, scipy_blas
from fedopt.vectors.rows import aligned

needs_numpy_blas = pytest.mark.skipif(
    numpy_blas() is None, reason="NumPy's BLAS has no small kernels here, or torch's are as good"
)
SIDES = ("rows", "inner", "columns")
sizes = st.integers(1, 40)
dtypes = st.sampled_from([torch.float32, torch.float64])


def factors(lanes: int, rows: int, inner: int, columns: int, turned: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random a and b in the lanes' memory; b lies the other way round if `turned`."""
    generator = torch.Generator().manual_seed(rows * 7 + inner * 3 + columns)
    scratch = Scratch(torch.zeros((), dtype=dtype))
    a = scratch("a", lanes, (rows, inner))
    b = scratch("b", lanes, (columns, inner)).transpose(1, 2) if turned else scratch("b", lanes, (inner, columns))
    for x in (a, b):
        x.copy_(torch.randn(x.shape, generator=generator, dtype=dtype))
    return a, b


@given(st.integers(1, 4), sizes, sizes, sizes, st.booleans(), dtypes, st.booleans())
def test_products_are_those_of_plain_sums(
    lanes: int, rows: int, inner: int, columns: int, turned: bool, dtype: torch.dtype, by_torch: bool
) -> None:
    a, b = factors(lanes, rows, inner, columns, turned, dtype)
    into = Scratch(a).dense("into", (lanes, rows, columns)).fill_(7.0)
    with pytest.MonkeyPatch.context() as patch:
        if by_torch:
            patch.setattr(products, "numpy_blas", lambda: None)
        multiply = plain_product(into, a, b)
    with in_one_thread():
        multiply()
    # Each entry by itself, exactly rounded terms in float64.
    expected = (a.double()[:, :, :, None] * b.double()[:, None]).sum(2)
    scale = (a.double().abs()[:, :, :, None] * b.double().abs()[:, None]).sum(2)
    assert bool(((into.double() - expected).abs() <= 4 * inner * torch.finfo(dtype).eps * scale).all())


@given(st.integers(2, 5), sizes, st.integers(1, 300), sizes, st.booleans(), dtypes)
def test_a_lane_has_the_same_product_alone(
    lanes: int, rows: int, inner: int, columns: int, turned: bool, dtype: torch.dtype
) -> None:
    a, b = factors(lanes, rows, inner, columns, turned, dtype)
    together, alone = (Scratch(a)("into", lanes, (rows, columns)) for _ in range(2))
    with in_one_thread():
        plain_product(together, a, b)()
        for lane in range(lanes):
            own = slice(lane, lane + 1)
            plain_product(alone[own], a[own], b[own])()
    assert together.equal(alone)


@given(
    lanes=st.integers(2, 5),
    rows=sizes,
    inner=st.integers(1, 300),
    columns=sizes,
    one=st.sampled_from(["rows", "inner", "columns", ""]),
    turned=st.booleans(),
    gap=st.integers(0, 2),
    dtype=dtypes,
    keep=st.sampled_from([0.0, 1.0]),
)
def test_a_lane_has_the_same_product_in_memory_of_its_own(
    lanes: int, rows: int, inner: int, columns: int, one: str, turned: bool, gap: int, dtype: torch.dtype, keep: float
) -> None:
    """A lane of many lies in a row of all parameters; a single one has strides that say nothing of that."""
    rows, inner, columns = (
        1 if name == one else size for name, size in zip(SIDES, (rows, inner, columns), strict=True)
    )
    a, b = factors(lanes, rows, inner, columns, turned, dtype)
    row = aligned(rows * columns, a) + gap * aligned(1, a)
    together = torch.zeros(lanes, row, dtype=dtype)[:, : rows * columns].view(lanes, rows, columns)
    with in_one_thread():
        products.product(together, a, b, keep, -0.1)
        for lane in range(lanes):
            own_b = b[lane].T.clone().T if turned else b[lane].clone()
            alone = torch.zeros(1, rows, columns, dtype=dtype)
            products.product(alone, a[lane].clone()[None], own_b[None], keep, -0.1)
            assert alone[0].equal(together[lane])


@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 900), st.integers(1, 300), dtypes)
def test_rows_meet_rows_in_blocks(lanes: int, rows: int, inner: int, columns: int, dtype: torch.dtype) -> None:
    a, b = factors(lanes, rows, inner, columns, True, dtype)
    into, alone = (Scratch(a)("into", lanes, (rows, columns)).fill_(torch.nan) for _ in range(2))
    with in_one_thread():
        plain_product(into, a, b)()
        for lane in range(lanes):
            own = slice(lane, lane + 1)
            plain_product(alone[own], a[own], b[own])()
    expected, scale = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    assert bool(((into.double() - expected).abs() <= 4 * inner * torch.finfo(dtype).eps * scale).all())
    assert into.equal(alone)


@given(
    st.integers(1, 4),
    st.integers(1, 70),
    sizes,
    st.integers(1, 300),
    st.booleans(),
    st.booleans(),
    dtypes,
    st.sampled_from([0.0, 0.9, 1.0]),
    st.sampled_from([1.0, -0.01]),
)
def test_products_are_added_where_they_belong(
    lanes: int,
    rows: int,
    inner: int,
    columns: int,
    turn_a: bool,
    turn_b: bool,
    dtype: torch.dtype,
    keep: float,
    scale: float,
) -> None:
    at, _ = factors(lanes, inner, rows, 1, False, dtype)
    a = at.transpose(1, 2) if turn_a else factors(lanes, rows, inner, 1, False, dtype)[0]
    _, b = factors(lanes, 1, inner, columns, turn_b, dtype)
    into, alone = (Scratch(a)("into", lanes, (rows, columns)) for _ in range(2))
    before = torch.randn(into.shape, generator=torch.Generator().manual_seed(rows), dtype=dtype)
    into.copy_(before if keep else torch.full_like(before, torch.nan))  # what is not kept may be anything
    alone.copy_(into)
    with in_one_thread():
        adding_product(into, a, b)(keep, scale)
        for lane in range(lanes):
            own = slice(lane, lane + 1)
            adding_product(alone[own], a[own], b[own])(keep, scale)
    expected = keep * before.double() + scale * (a.double() @ b.double())
    size = before.double().abs() + abs(scale) * (a.double().abs() @ b.double().abs())
    assert bool(((into.double() - expected).abs() <= 4 * (inner + 2) * torch.finfo(dtype).eps * size).all())
    assert into.equal(alone)


@needs_numpy_blas
def test_scipy_gets_narrow_products_that_need_no_copy() -> None:
    def taken(rows: int, inner: int, columns: int, into: Tensor | None = None) -> bool:
        at, _ = factors(2, inner, rows, 1, False, torch.float32)
        _, b = factors(2, 1, inner, columns, False, torch.float32)
        into = Scratch(b)("into", 2, (rows, columns)) if into is None else into
        return products._with_scipy(into, at.transpose(1, 2), b) is not None

    assert taken(10, 64, 784)
    assert not taken(200, 10, 784)
    assert not taken(64, 64, 784)
    assert not taken(10, 64, 784, Scratch(torch.zeros(()))("turned", 2, (784, 10)).transpose(1, 2))


@needs_numpy_blas
@pytest.mark.parametrize("of", [numpy_blas, scipy_blas])
def test_threads_are_given_back(of: Callable[[], LibController | None]) -> None:
    blas = of()
    assert blas is not None
    before = blas.get_num_threads()
    blas.set_num_threads(2)
    try:
        with suppress(KeyboardInterrupt), in_one_thread():
            with in_one_thread():
                assert blas.get_num_threads() == 1
            assert blas.get_num_threads() == 1  # others are not done yet
            raise KeyboardInterrupt
        assert blas.get_num_threads() == 2
    finally:
        blas.set_num_threads(before)


@needs_numpy_blas
def test_overflow_raises_no_warning_here() -> None:
    a, b = factors(2, 10, 50, 10, turned=True, dtype=torch.float32)
    into = Scratch(a)("into", 2, (10, 10))
    a.fill_(3e38)
    with warnings.catch_warnings(), in_one_thread():
        warnings.simplefilter("error")
        plain_product(into, a, b)()
    assert not torch.isfinite(into).any()


@needs_numpy_blas
def test_torch_keeps_the_products_that_numpy_computes_more_slowly() -> None:
    def taken(rows: int, inner: int, columns: int, *, turned: bool, dtype: torch.dtype = torch.float32) -> bool:
        a, b = factors(2, rows, inner, columns, turned, torch.float32)
        into = Scratch(torch.zeros(()))("into", 2, (rows, columns))
        return products.with_numpy(into.to(dtype), a.to(dtype), b.to(dtype)) is not None

    assert taken(10, 784, 10, turned=True)
    assert taken(10, 784, 200, turned=True)
    assert taken(64, 784, 200, turned=True)
    assert not taken(65, 784, 200, turned=True)
    assert not taken(32, 64, 200, turned=True)
    assert taken(65, 784, 200, turned=False)
    assert not taken(10, 784, 10, turned=True, dtype=torch.bfloat16)
