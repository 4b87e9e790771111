"""Streaming sums of vectors that do not depend, to the last bit, on the order of arrival.

A sum of floats depends on its order; a sum of integers does not. Each weighted vector is rounded to multiples of 2^-56
and added up in two fixed-point limbs: a fine limb of multiples of 2^-56 and, by exact operations, a coarse limb of
multiples of 2^-20 for what is too large for the fine one. Only the sum of both limbs has a meaning. float64 adds whole
numbers exactly up to 2^53, so the limbs are float64 tensors (twice as fast as int64, whose conversions are not
vectorized): 16 bytes a parameter, whatever the size of the cohort.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fedopt.vectors.layout import largest_magnitude

COARSE, FINE = 20, 56
"""The limbs count in units of 2^-COARSE and 2^-FINE. The rest that a coarse unit leaves is at most half of it, which is
REMAINDER fine units, so 2^18 updates fit before a sum could reach EXACT."""

LARGEST = 2.0**32
"""No entry of a summed vector may reach this: with weights that add up to at most 1, the coarse limb then stays below
2^53. `admission` refuses larger entries; no model that still learns comes near."""

CHUNK = 2**16
"""Entries that a CPU processes at once, so that repeated passes over them stay within its caches."""

TO_FINE = 2.0 ** (FINE - COARSE)

REMAINDER, EXACT = TO_FINE / 2, 2.0**53

FULL = EXACT / 2
"""The fine limb is carried into the coarse one before it reaches this: the bound itself is rounded."""


class ExactSum:
    """The running sum of weight * vector over clients."""

    def __init__(self, like: Tensor) -> None:
        self._dtype, self._home = like.dtype, like.device
        # MPS has no float64: its vectors are summed on the CPU.
        self._device = torch.device("cpu") if like.device.type == "mps" else like.device
        self._coarse = torch.zeros(like.shape, dtype=torch.float64, device=self._device)
        self._fine = torch.zeros_like(self._coarse)
        self._room = np.empty((2, min(CHUNK, like.numel()))) if self._device.type == "cpu" else None
        self._bound = 0.0
        """An upper bound of the fine limb's entries; maintained on a CPU only."""

    def clear(self) -> None:
        """Resets the sum to zero and reuses its memory."""
        self._coarse.zero_()
        self._fine.zero_()
        self._bound = 0.0

    def add(self, vector: Tensor, weight: float) -> None:
        if self._room is not None:
            self._add_here(vector.detach().cpu(), weight, self._room)
            return
        rest = vector.detach().to(torch.float64, copy=True).mul_(weight * 2.0**COARSE)
        whole = rest.round()
        self._coarse += whole
        # Exact: the whole part takes the leading bits of rest, a power of two only scales.
        self._fine += rest.sub_(whole).mul_(TO_FINE).round_()

    def _add_here(self, vector: Tensor, weight: float, room: np.ndarray) -> None:
        """`add` on a CPU, by NumPy. Small numbers go into the fine limb alone, which takes half the time."""
        largest = abs(weight) * 2.0**FINE * largest_magnitude(vector) + 1.0
        straight = largest < FULL / 2
        added = largest if straight else REMAINDER
        if self._bound + added > FULL:
            self._carry(room)
        self._bound += added
        coarse, fine, given = self._coarse.numpy(), self._fine.numpy(), vector.numpy()
        scale = weight * 2.0 ** (FINE if straight else COARSE)
        for part in _chunks(len(given)):
            rest, whole = room[:, : part.stop - part.start]
            rest[:] = given[part]
            rest *= scale
            if not straight:
                np.rint(rest, out=whole)
                coarse[part] += whole
                rest -= whole
                rest *= TO_FINE
            fine[part] += np.rint(rest, out=rest)

    def _carry(self, room: np.ndarray) -> None:
        """Moves whole coarse units from the fine limb to the coarse one."""
        coarse, fine = self._coarse.numpy(), self._fine.numpy()
        for part in _chunks(len(fine)):
            _, whole = room[:, : part.stop - part.start]
            np.multiply(fine[part], 1 / TO_FINE, out=whole)
            coarse[part] += np.rint(whole, out=whole)
            whole *= TO_FINE
            fine[part] -= whole
        self._bound = REMAINDER

    def scaled(self, factor: float) -> Tensor:
        """factor * sum, with the dtype and device of the vectors that were added."""
        if self._room is None:
            return self.total().mul_(factor).to(self._dtype)
        found = torch.empty(self._coarse.shape, dtype=self._dtype)
        for part in _chunks(len(found)):
            total, small = self._room[:, : part.stop - part.start]
            np.multiply(self._coarse[part].numpy(), 2.0**-COARSE, out=total)
            np.multiply(self._fine[part].numpy(), 2.0**-FINE, out=small)
            total += small
            total *= factor
            found[part] = torch.from_numpy(total)
        return found.to(self._home)

    def limbs(self) -> tuple[Tensor, Tensor]:
        """The coarse and the fine limb. Sums of several processes are added limb by limb and stay exact."""
        if self._room is not None:
            self._carry(self._room)
        return self._coarse, self._fine

    def total(self) -> Tensor:
        """The sum in float64."""
        return self._coarse.mul(2.0**-COARSE).add_(self._fine, alpha=2.0**-FINE)  # both products are exact


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK))
