"""Memory for lanes: every lane begins where a tensor of its own would.

Matrix products may round otherwise where their operands are not aligned to a cache line (seen on AMD, float32). Kernels
of single numbers take two vectors of the processor at a time, and what is left over at the end one by one, by other
functions. A lane must get the same bits whichever row it is and however many run beside it, so every row is a whole
number of these pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

ROW_UNIT = 128
"""Bytes of two AVX-512 vectors, and of two cache lines; torch aligns what it allocates to one."""


def aligned(size: int, like: Tensor) -> int:
    """The least multiple of ROW_UNIT that holds `size` numbers, counted in numbers."""
    numbers = ROW_UNIT // like.element_size()
    return -(-size // numbers) * numbers


class Scratch:
    """Buffers of one layer, by name; used again for every step, and for fewer lanes or narrower batches.

    A buffer that must grow is a new tensor: whoever asks for one anew must let go of what it got before.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._stores: dict[str, Tensor] = {}

    def __call__(self, name: str, lanes: int, shape: Sequence[int]) -> Tensor:
        """[lanes, *shape], contiguous but for the gaps that align the lanes; holds anything."""
        size = math.prod(shape)
        row = aligned(size, self._like)
        store = self._stores.get(name)
        if store is None or store.numel() < lanes * row:
            store = self._stores[name] = self._like.new_zeros(lanes * row)
        return store[: lanes * row].view(lanes, row)[:, :size].view(lanes, *shape)

    def dense(self, name: str, shape: Sequence[int]) -> Tensor:
        """Without gaps: for what is no factor of a product later on."""
        return self(name, 1, shape)[0]

    def beside(self, name: str, x: Tensor) -> Tensor:
        """A buffer of the shape of x whose lanes lie in memory in the same order of dimensions."""
        strides = x.stride()
        order = sorted(range(1, x.ndim), key=lambda dim: -strides[dim])
        place = [0] * x.ndim
        for position, dim in enumerate(order, start=1):
            place[dim] = position
        return self(name, x.shape[0], [x.shape[dim] for dim in order]).permute(place)


def whole_rows(x: Tensor) -> Tensor:
    """A buffer of `Scratch` with its gaps, [lanes, row], whatever its shape.

    Exponentials and the like differ in the last bit between whole vectors of a processor and what is left over at the
    end; whole rows leave nothing over.
    """
    # Not x.stride(0): for a single lane it says nothing.
    row = aligned(math.prod(x.shape[1:]), x)
    return x.as_strided((x.shape[0], row), (row, 1))
