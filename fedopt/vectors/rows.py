"""How long a row of memory must be that stands beside others.

Elementwise kernels process two SIMD vectors at a time, and the rest at the end with other code, whose last bits may
differ. Rows that are a whole number of such pairs have no rest: a lane then gets the same bits in any row and beside
any number of lanes.
"""

from __future__ import annotations

from torch import Tensor

ROW_UNIT = 128
"""Bytes of two AVX-512 vectors, and of two cache lines; torch aligns what it allocates to one."""


def aligned(size: int, like: Tensor) -> int:
    """The least multiple of ROW_UNIT that holds `size` numbers, counted in numbers."""
    numbers = ROW_UNIT // like.element_size()
    return -(-size // numbers) * numbers
