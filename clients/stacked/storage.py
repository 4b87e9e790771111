"""Memory for lanes: every lane begins where a tensor of its own would.

Matrix products may round otherwise where their operands are not aligned to a cache line (seen on AMD, float32), and a
lane must get the same bits whichever row it is and however many run beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CACHE_LINE = 64
"""Bytes to which torch aligns what it allocates."""


def aligned(size: int, like: Tensor) -> int:
    """The least multiple of a cache line that holds `size` numbers, counted in numbers."""
    numbers = CACHE_LINE // like.element_size()
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
    return x.as_strided((x.shape[0], x.stride(0)), (x.stride(0), 1))


def product(into: Tensor, a: Tensor, b: Tensor, keep: float = 0.0, scale: float = 1.0) -> None:
    """into <- keep * into + scale * (a @ b), lane by lane; the same bits for a lane alone as for one of many."""
    if into.size(0) == 1 and 1 in (*a.shape[1:], b.shape[2]):
        # A single product with a vector takes another road through BLAS than one of a batch.
        twice = torch.baddbmm(_twice(into), _twice(a), _twice(b), beta=keep, alpha=scale)
        into.copy_(twice[:1])
    else:
        into.baddbmm_(a, b, beta=keep, alpha=scale)


def _twice(one: Tensor) -> Tensor:
    return torch.cat([one, one])
