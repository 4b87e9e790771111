"""Batched matrix products, one per lane, and the BLAS library that computes them.

torch calls MKL, which has kernels for small matrices on Intel processors only. NumPy's OpenBLAS has them wherever there
is AVX-512. Measured on AMD (Zen 4), one thread, float32: 784 x 10 on 10 rows 2.1 us instead of 10 us, 200 x 200 on 10
rows 9 instead of 14; in float64 at least twice as fast. A product of a layer's input with its weights, whose rows both
lie along the sum, is split into blocks that fit these kernels: 784 x 200 on 10 rows 35 us instead of 60. NumPy cannot
add a product to a matrix. SciPy, which ships the same BLAS, can: 784 x 10 on 64 rows 11 us instead of 22. The choice
depends on shapes and processor only, never on measured time, so that a run always gives the same bits.

With `rounding`, operands are rounded first: on a CPU to study the effect on a run, on a GPU for speed.
"""

from __future__ import annotations

import functools
import math
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import LibController, ThreadpoolController
from torch import Tensor

from fedopt.precision import Products, rounded
from fedopt.vectors.rows import aligned

SMALL_KERNELS = {"SkylakeX", "Cooperlake", "SapphireRapids"}
"""OpenBLAS's names of the processors for which it has kernels for small matrices."""

DOT_PRODUCTS, MULTIPLICATIONS = 1024, 10**6
"""OpenBLAS uses these kernels up to so many results and multiplications, if b is transposed in memory. Beyond that it
packs the matrix first, and a product takes twice the time (measured)."""

MOST_ROWS, BLOCK_ROWS, LENGTH = 64, 32, 6
"""Blocks are used for products of at most so many rows, with at most so many rows a block, and if rows are at least
so many times as long as a block is high (measured, 4 to 64 rows of 64 to 3072 numbers: 0.95 to 2.5 times as fast as
torch)."""

NARROW = 64
"""SciPy adds products to matrices of at most so many rows (measured on 2 to 64 rows of 64 to 3072 numbers: 1.1 to 5
times as fast as torch; beyond that both are equally fast)."""


def product(into: Tensor, a: Tensor, b: Tensor, keep: float = 0.0, scale: float = 1.0) -> None:
    """into <- keep * into + scale * (a @ b) for each lane, with the same bits for one lane as for many."""
    kind = _rounding.get()
    if kind == "bf16" and into.device.type == "cuda":
        _add(into, torch.bmm(a.bfloat16(), b.bfloat16(), out_dtype=into.dtype), keep, scale)
        return
    if kind != "full" and into.device.type == "cpu":
        a, b = rounded(a, kind), rounded(b, kind)
    if 1 in (*a.shape[1:], b.shape[2]):
        # For vectors torch's choice of kernel depends on the number of lanes and on gaps between them.
        found = _with_gaps(into)
        found.baddbmm_(_at_least_two(a), _at_least_two(b), beta=keep, alpha=scale)
        into.copy_(found[: len(into)])
    else:
        into.baddbmm_(a, b, beta=keep, alpha=scale)


def plain_product(into: Tensor, a: Tensor, b: Tensor) -> Callable[[], object]:
    """A function that computes into <- a @ b for each lane. The tensors must keep their memory."""
    return with_numpy(into, a, b) or functools.partial(product, into, a, b)


def adding_product(into: Tensor, a: Tensor, b: Tensor) -> Callable[[float, float], object]:
    """A function of keep and scale that computes into <- keep * into + scale * (a @ b) for each lane.

    The tensors must keep their memory.
    """
    return _with_scipy(into, a, b) or functools.partial(product, into, a, b)


def _with_scipy(into: Tensor, a: Tensor, b: Tensor) -> Callable[[float, float], object] | None:
    """The same by SciPy's BLAS; None if torch is as fast, or if SciPy would have to copy a matrix."""
    if into.device.type != "cpu" or into.dtype not in (torch.float32, torch.float64) or _rounding.get() != "full":
        return None
    _, rows, columns = into.shape
    if rows > NARROW or rows * columns * a.shape[2] > MULTIPLICATIONS or scipy_blas() is None:
        return None
    from scipy.linalg import blas

    multiply = blas.sgemm if into.dtype == torch.float32 else blas.dgemm
    lanes = []
    for c, left, right in zip(into.numpy(), a.numpy(), b.numpy(), strict=True):
        # Fortran's matrices are column-major: it computes into^T <- keep * into^T + scale * b^T @ a^T.
        own = [_for_fortran(right.T), _for_fortran(left.T)]
        if not c.flags.c_contiguous or None in own:
            return None
        (first, transpose_first), (second, transpose_second) = (found for found in own if found is not None)
        lanes.append((first, second, c.T, transpose_first, transpose_second))

    def add(keep: float, scale: float) -> None:
        for first, second, out, transpose_first, transpose_second in lanes:
            multiply(scale, first, second, keep, out, transpose_first, transpose_second, overwrite_c=1)

    return add


def _for_fortran(matrix: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """The matrix in column-major order, without a copy, and whether it is the transpose of the given one."""
    if matrix.flags.f_contiguous:
        return matrix, False
    return (matrix.T, True) if matrix.flags.c_contiguous else None


def with_numpy(into: Tensor, a: Tensor, b: Tensor) -> Callable[[], object] | None:
    """The same by NumPy's BLAS; None if torch is faster."""
    if into.device.type != "cpu" or into.dtype not in (torch.float32, torch.float64) or numpy_blas() is None:
        return None
    if _rounding.get() != "full":
        return None
    if into.stride(2) != 1 or a.stride(2) != 1 or 1 not in b.stride()[1:]:
        return None
    if b.stride(2) == 1:
        return functools.partial(np.matmul, a.numpy(), b.numpy(), out=into.numpy())
    return _rows_with_rows(into.numpy(), a.numpy(), b.numpy())


def _rows_with_rows(into: np.ndarray, a: np.ndarray, b: np.ndarray) -> Callable[[], object] | None:
    """a @ b block by block, where columns of b are contiguous; None if blocks are not faster."""
    (_, rows, inner), columns = a.shape, b.shape[2]
    if rows * columns <= DOT_PRODUCTS and rows * columns * inner <= MULTIPLICATIONS:
        return functools.partial(np.matmul, a, b, out=into)
    height = _even(rows, BLOCK_ROWS)
    widest = min(DOT_PRODUCTS // height, MULTIPLICATIONS // (height * inner))
    if rows > MOST_ROWS or inner < LENGTH * height or widest == 0:
        return None
    width = _even(columns, widest)
    blocks = [
        (a[:, top : top + height], b[:, :, left : left + width], into[:, top : top + height, left : left + width])
        for left in range(0, columns, width)
        for top in range(0, rows, height)
    ]

    def multiply() -> None:
        for own_rows, own_columns, out in blocks:
            np.matmul(own_rows, own_columns, out=out)

    return multiply


def _even(length: int, most: int) -> int:
    """The size of the parts if `length` is split evenly into as few parts as possible of at most `most`."""
    return math.ceil(length / math.ceil(length / most))


_rounding: ContextVar[Products] = ContextVar("rounding", default="full")


@contextmanager
def rounding(products: Products) -> Iterator[None]:
    """In this context operands are rounded in this way. A function that was prepared in it must run in it.

    tf32 on a GPU is done by the GPU itself.
    """
    token = _rounding.set(products)
    try:
        yield
    finally:
        _rounding.reset(token)


@contextmanager
def in_one_thread() -> Iterator[None]:
    """In this context NumPy's and SciPy's BLAS use one thread, and NumPy does not warn about overflow."""
    libraries = [blas for blas in (numpy_blas(), scipy_blas()) if blas is not None]
    if not libraries:
        yield
        return
    _single_thread.begin(libraries)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _single_thread.end()


class _SingleThread:
    """Keeps libraries to one thread as long as at least one of several callers, in any thread, needs that."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before: list[tuple[LibController, int]] = []

    def begin(self, libraries: Sequence[LibController]) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = [(library, library.get_num_threads()) for library in libraries]
                for library in libraries:
                    library.set_num_threads(1)
            self._inside += 1

    def end(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library, threads in self._before:
                    library.set_num_threads(threads)


_single_thread = _SingleThread()


def numpy_blas() -> LibController | None:
    """NumPy's OpenBLAS, if its kernels for small matrices are faster than torch's."""
    return _small_kernels().get("numpy")


def scipy_blas() -> LibController | None:
    """SciPy's OpenBLAS, if NumPy's is used."""
    return None if numpy_blas() is None else _small_kernels().get("scipy")


@functools.cache
def _small_kernels() -> dict[str, LibController]:
    """The packages whose OpenBLAS has kernels for small matrices that are faster than torch's here."""
    if _is_intel():
        return {}
    from scipy.linalg import blas

    homes = {"numpy": Path(np.__file__).parent.parent, "scipy": Path(blas.__file__).parent.parent.parent}
    places = {home / place: name for name, home in homes.items() for place in (f"{name}.libs", f"{name}/.dylibs")}
    return {
        places[Path(library.filepath).parent]: library
        for library in ThreadpoolController().lib_controllers
        if library.internal_api == "openblas"
        and library.architecture in SMALL_KERNELS
        and Path(library.filepath).parent in places
    }


def _is_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine() not in ("aarch64", "arm64")  # outside Linux an x86 processor is taken for Intel's


def _add(into: Tensor, found: Tensor, keep: float, scale: float) -> None:
    if keep == 0.0:  # `into` may hold NaN
        torch.mul(found, scale, out=into)
    else:
        (into if keep == 1.0 else into.mul_(keep)).add_(found, alpha=scale)


def _at_least_two(lanes: Tensor) -> Tensor:
    """The lanes; a single lane is repeated."""
    return lanes if len(lanes) > 1 else _laid_out(lanes, 2, gap=0)


def _with_gaps(lanes: Tensor) -> Tensor:
    """A copy of the lanes, at least two, which is never contiguous."""
    return _laid_out(lanes, max(2, len(lanes)), gap=1)


def _laid_out(lanes: Tensor, count: int, gap: int) -> Tensor:
    """A copy of so many aligned lanes with the same strides; `gap` is in units of the alignment."""
    _, *sides = lanes.shape
    _, *strides = lanes.stride()
    extent = 1 + sum((side - 1) * stride for side, stride in zip(sides, strides, strict=True))
    row = aligned(extent, lanes) + gap * aligned(1, lanes)
    copied = lanes.new_empty(count * row).as_strided((count, *sides), (row, *strides))
    return copied.copy_(lanes if len(lanes) == count else lanes.expand(count, *sides))
