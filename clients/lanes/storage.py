"""Memory for lanes: every lane is aligned as a tensor of its own would be.

Matrix products may round differently if their operands are not aligned to a cache line (seen on AMD, float32), and
elementwise kernels where a row does not end with a pair of SIMD vectors; see `fedopt.vectors.rows`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from fedopt.vectors.rows import aligned


class Scratch:
    """Named buffers of one layer, reused for every step, and for fewer lanes or smaller batches.

    A buffer that must grow becomes a new tensor: drop the old one when you ask for a buffer again.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._stores: dict[str, Tensor] = {}

    def __call__(self, name: str, lanes: int, shape: Sequence[int]) -> Tensor:
        """[lanes, *shape], contiguous except for the gaps that align the lanes; the contents are arbitrary."""
        size = math.prod(shape)
        row = aligned(size, self._like)
        store = self._stores.get(name)
        if store is None or store.numel() < lanes * row:
            store = self._stores[name] = self._like.new_zeros(lanes * row)
        return store[: lanes * row].view(lanes, row)[:, :size].view(lanes, *shape)

    def dense(self, name: str, shape: Sequence[int]) -> Tensor:
        """A buffer without gaps, for numbers that are not an operand of a product later."""
        return self(name, 1, shape)[0]

    def shaped_like(self, name: str, x: Tensor) -> Tensor:
        """A buffer with the shape of x and the same order of dimensions in memory."""
        strides = x.stride()
        order = sorted(range(1, x.ndim), key=lambda dim: -strides[dim])
        place = [0] * x.ndim
        for position, dim in enumerate(order, start=1):
            place[dim] = position
        return self(name, x.shape[0], [x.shape[dim] for dim in order]).permute(place)


def whole_rows(x: Tensor) -> Tensor:
    """A buffer of `Scratch` of any shape together with its gaps, [lanes, row].

    Exponentials and the like differ in the last bit between full SIMD vectors and the rest at the end; whole rows have
    no such rest.
    """
    # Not x.stride(0): it is arbitrary for a single lane.
    row = aligned(math.prod(x.shape[1:]), x)
    return x.as_strided((x.shape[0], row), (row, 1))
