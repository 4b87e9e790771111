"""Matrix products lane by lane, and whose BLAS does them.

torch calls MKL, which has no kernels for small matrices on processors that are not Intel's; NumPy's OpenBLAS has, where
there is AVX-512. Measured on AMD (Zen 4), one thread, float32: 784 x 10 on 10 rows 2.1 against 10 us, 200 x 200 on 10
rows 9 against 14; twice as fast and more in float64. Rows with rows, which is how a layer meets its weights, are cut
into blocks that its kernels for small matrices take: 784 x 200 on 10 rows 35 against 60 us. NumPy cannot add a product
to what is there; SciPy, which comes with the same BLAS, can: 784 x 10 on 64 rows 11 against 22 us. The choice depends
on shapes and on the processor, never on a clock, so that a run gives the same bits whenever it is run.

With `rounding`, operands are rounded first: on a CPU to study what that does to a run, on a GPU for its speed.
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

from clients.lanes.storage import aligned
from fedopt.precision import Products, rounded

SMALL_KERNELS = {"SkylakeX", "Cooperlake", "SapphireRapids"}
"""What OpenBLAS calls the processors for which it has them."""

DOT_PRODUCTS, MULTIPLICATIONS = 1024, 10**6
"""Results of rows with rows, and multiplications for them, up to which it uses them, rather than to pack the matrix
that lies the wrong way (measured: from there on a product takes twice the time)."""

MOST_ROWS, BLOCK_ROWS, LENGTH = 64, 32, 6
"""Rows up to which blocks were found to pay, in a product and in a block; and how many times as long as a block has
rows these must be (measured, 4 to 64 rows of 64 to 3072 numbers: 0.95 to 2.5 times as fast as torch)."""

NARROW = 64
"""Rows of a result up to which a product is added to it by SciPy (measured on 2 to 64 rows of 64 to 3072 numbers: 1.1
to 5 times as fast as torch's; wider ones are as fast either way)."""


def product(into: Tensor, a: Tensor, b: Tensor, keep: float = 0.0, scale: float = 1.0) -> None:
    """into <- keep * into + scale * (a @ b), lane by lane; the same bits for a lane alone as for one of many."""
    kind = _rounding.get()
    if kind == "bf16" and into.device.type == "cuda":
        _add(into, torch.bmm(a.bfloat16(), b.bfloat16(), out_dtype=into.dtype), keep, scale)
        return
    if kind != "full" and into.device.type == "cpu":
        a, b = rounded(a, kind), rounded(b, kind)
    if 1 in (*a.shape[1:], b.shape[2]):
        # torch takes other kernels for vectors, by whether there is one lane and whether lanes have gaps between them.
        found = _with_gaps(into)
        found.baddbmm_(_at_least_two(a), _at_least_two(b), beta=keep, alpha=scale)
        into.copy_(found[: len(into)])
    else:
        into.baddbmm_(a, b, beta=keep, alpha=scale)


def plain_product(into: Tensor, a: Tensor, b: Tensor) -> Callable[[], object]:
    """What computes into <- a @ b, lane by lane, as often as it is called; the tensors must stay where they are."""
    return with_numpy(into, a, b) or functools.partial(product, into, a, b)


def adding_product(into: Tensor, a: Tensor, b: Tensor, keep: float, scale: float) -> Callable[[], object]:
    """What computes into <- keep * into + scale * (a @ b), lane by lane, for tensors that stay where they are."""
    return _with_scipy(into, a, b, keep, scale) or functools.partial(product, into, a, b, keep, scale)


def _with_scipy(into: Tensor, a: Tensor, b: Tensor, keep: float, scale: float) -> Callable[[], object] | None:
    """The same by SciPy's BLAS; None if torch's is as good, or matrices lie in a way that it would have to copy."""
    if into.device.type != "cpu" or into.dtype not in (torch.float32, torch.float64) or _rounding.get() != "full":
        return None
    _, rows, columns = into.shape
    if rows > NARROW or rows * columns * a.shape[2] > MULTIPLICATIONS or scipys_blas() is None:
        return None
    from scipy.linalg import blas

    multiply = blas.sgemm if into.dtype == torch.float32 else blas.dgemm
    lanes: list[Callable[[], object]] = []
    for c, left, right in zip(into.numpy(), a.numpy(), b.numpy(), strict=True):
        # Fortran's matrices lie the other way: it is told into^T <- keep * into^T + scale * b^T @ a^T.
        own = [_for_fortran(right.T), _for_fortran(left.T)]
        if not c.flags.c_contiguous or None in own:
            return None
        (first, turn_first), (second, turn_second) = (found for found in own if found is not None)
        lanes.append(
            functools.partial(multiply, scale, first, second, keep, c.T, turn_first, turn_second, overwrite_c=1)
        )

    def add() -> None:
        for lane in lanes:
            lane()

    return add


def _for_fortran(matrix: np.ndarray) -> tuple[np.ndarray, bool] | None:
    """A matrix whose columns lie one after the other, and whether it is the given one turned round."""
    if matrix.flags.f_contiguous:
        return matrix, False
    return (matrix.T, True) if matrix.flags.c_contiguous else None


def with_numpy(into: Tensor, a: Tensor, b: Tensor) -> Callable[[], object] | None:
    """The same by NumPy's BLAS; None if torch's is the faster."""
    if into.device.type != "cpu" or into.dtype not in (torch.float32, torch.float64) or numpys_blas() is None:
        return None
    if _rounding.get() != "full":
        return None
    if into.stride(2) != 1 or a.stride(2) != 1 or 1 not in b.stride()[1:]:
        return None
    if b.stride(2) == 1:
        return functools.partial(np.matmul, a.numpy(), b.numpy(), out=into.numpy())
    return _rows_with_rows(into.numpy(), a.numpy(), b.numpy())


def _rows_with_rows(into: np.ndarray, a: np.ndarray, b: np.ndarray) -> Callable[[], object] | None:
    """a @ b for columns of b that lie in memory as rows do, block by block; None if that does not pay."""
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
    """The size of as few parts of about the same size as there can be, if none is larger than `most`."""
    return math.ceil(length / math.ceil(length / most))


_rounding: ContextVar[Products] = ContextVar("rounding", default="full")


@contextmanager
def rounding(products: Products) -> Iterator[None]:
    """Within, operands are rounded so; what is laid out within must run within. tf32 on a GPU is the GPU's affair."""
    token = _rounding.set(products)
    try:
        yield
    finally:
        _rounding.reset(token)


@contextmanager
def in_one_thread() -> Iterator[None]:
    """NumPy's and SciPy's BLAS as what runs in here expects them: on this thread alone, silent about numbers that run
    away."""
    libraries = [blas for blas in (numpys_blas(), scipys_blas()) if blas is not None]
    if not libraries:
        yield
        return
    _alone.begin(libraries)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _alone.end()


class _Alone:
    """Keeps libraries to one thread from the first who asks for it to the last; several threads may."""

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


_alone = _Alone()


def numpys_blas() -> LibController | None:
    """NumPy's OpenBLAS, where its small kernels are better than what torch calls."""
    return _small_kernels().get("numpy")


def scipys_blas() -> LibController | None:
    """SciPy's, where NumPy's is wanted."""
    return None if numpys_blas() is None else _small_kernels().get("scipy")


@functools.cache
def _small_kernels() -> dict[str, LibController]:
    """Which packages have an OpenBLAS with small kernels that are wanted here."""
    if _processor_is_intels():
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


def _processor_is_intels() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine() not in ("aarch64", "arm64")  # on what is not Linux, Intel's until proved otherwise


def _add(into: Tensor, found: Tensor, keep: float, scale: float) -> None:
    if keep == 0.0:  # whatever lies there, numbers or not
        torch.mul(found, scale, out=into)
    else:
        (into if keep == 1.0 else into.mul_(keep)).add_(found, alpha=scale)


def _at_least_two(lanes: Tensor) -> Tensor:
    """The lanes, or a single one twice."""
    return lanes if len(lanes) > 1 else _laid_out(lanes, 2, gap=0)


def _with_gaps(lanes: Tensor) -> Tensor:
    """A copy of the lanes, two at least, that are not contiguous however long they are."""
    return _laid_out(lanes, max(2, len(lanes)), gap=1)


def _laid_out(lanes: Tensor, count: int, gap: int) -> Tensor:
    """A copy of so many lanes, each with its strides and aligned as lanes are; `gap` is in units of that."""
    _, *sides = lanes.shape
    _, *strides = lanes.stride()
    extent = 1 + sum((side - 1) * stride for side, stride in zip(sides, strides, strict=True))
    row = aligned(extent, lanes) + gap * aligned(1, lanes)
    copied = lanes.new_empty(count * row).as_strided((count, *sides), (row, *strides))
    return copied.copy_(lanes if len(lanes) == count else lanes.expand(count, *sides))
