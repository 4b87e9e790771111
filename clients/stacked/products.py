"""Matrix products lane by lane, and whose BLAS does them.

torch calls MKL, which has no kernels for small matrices on processors that are not Intel's; NumPy's OpenBLAS has, where
there is AVX-512. Measured on AMD (Zen 4), one thread, float32: 784 x 10 on 10 rows 2.1 against 10 us, 200 x 200 on 10
rows 9 against 14; twice as fast and more in float64. The choice depends on shapes and on the processor, never on a
clock, so that a run gives the same bits whenever it is run.

With `rounding`, operands are rounded first: on a CPU to study what that does to a run, on a GPU for its speed.
"""

from __future__ import annotations

import functools
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import LibController, ThreadpoolController
from torch import Tensor

from fedopt.precision import Products, rounded

SMALL_KERNELS = {"SkylakeX", "Cooperlake", "SapphireRapids"}
"""What OpenBLAS calls the processors for which it has them."""

DOT_PRODUCTS = 1024
"""Results of rows with rows up to which it uses them, rather than to pack the matrix that lies the wrong way."""


def product(into: Tensor, a: Tensor, b: Tensor, keep: float = 0.0, scale: float = 1.0) -> None:
    """into <- keep * into + scale * (a @ b), lane by lane; the same bits for a lane alone as for one of many."""
    kind = _rounding.get()
    if kind == "bf16" and into.device.type == "cuda":
        _add(into, torch.bmm(a.bfloat16(), b.bfloat16(), out_dtype=into.dtype), keep, scale)
        return
    if kind != "full" and into.device.type == "cpu":
        a, b = rounded(a, kind), rounded(b, kind)
    if into.size(0) == 1 and 1 in (*a.shape[1:], b.shape[2]):
        # A single product with a vector takes another road through BLAS than one of a batch.
        twice = torch.baddbmm(_twice(into), _twice(a), _twice(b), beta=keep, alpha=scale)
        into.copy_(twice[:1])
    else:
        into.baddbmm_(a, b, beta=keep, alpha=scale)


def plain_product(into: Tensor, a: Tensor, b: Tensor) -> Callable[[], object]:
    """What computes into <- a @ b, lane by lane, as often as it is called; the tensors must stay where they are."""
    return with_numpy(into, a, b) or functools.partial(product, into, a, b)


def with_numpy(into: Tensor, a: Tensor, b: Tensor) -> Callable[[], object] | None:
    """The same by NumPy's BLAS; None if torch's is the faster."""
    if into.device.type != "cpu" or into.dtype not in (torch.float32, torch.float64) or numpys_blas() is None:
        return None
    if _rounding.get() != "full":
        return None
    rows, columns = into.shape[1:]
    if into.stride(2) != 1 or a.stride(2) != 1 or 1 not in b.stride()[1:]:
        return None
    if b.stride(2) != 1 and rows * columns > DOT_PRODUCTS:
        return None
    return functools.partial(np.matmul, a.numpy(), b.numpy(), out=into.numpy())


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
    """NumPy's BLAS as what runs in here expects it: on this thread alone, silent about numbers that run away."""
    blas = numpys_blas()
    if blas is None:
        yield
        return
    _alone.begin(blas)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _alone.end(blas)


class _Alone:
    """Keeps a BLAS to one thread from the first who asks for it to the last; several threads may."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, 1

    def begin(self, blas: LibController) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = blas.get_num_threads()
                blas.set_num_threads(1)
            self._inside += 1

    def end(self, blas: LibController) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                blas.set_num_threads(self._before)


_alone = _Alone()


@functools.cache
def numpys_blas() -> LibController | None:
    """NumPy's OpenBLAS, where its small kernels are better than what torch calls."""
    if _processor_is_intels():
        return None
    home = Path(np.__file__).parent.parent
    for library in ThreadpoolController().lib_controllers:
        known = library.internal_api == "openblas" and library.architecture in SMALL_KERNELS
        if known and Path(library.filepath).parent in (home / "numpy.libs", home / "numpy" / ".dylibs"):
            return library
    return None


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


def _twice(one: Tensor) -> Tensor:
    return torch.cat([one, one])
