"""Streaming sums of client vectors that do not depend, to the last bit, on the order of arrival.

A float sum depends on its order; a sum of integers does not. Each weighted vector is cut, by exact
float64 operations, into two fixed-point limbs that are added as int64: 16 bytes a parameter whatever the
cohort. The step of 2^-70 lies far below what a float64 model of ordinary size can tell apart; the range
of 2^31 far above what a model that still learns produces (`admission` refuses what lies outside).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from fedopt.parameters import Vectors

LIMBS = (30, 70)
"""Each limb counts units of 2^-exponent. A remainder after the first is at most 2^-31, or 2^39 units of the
second, so 2^23 updates fit before an int64 could overflow."""

LARGEST = 2.0**31
"""No entry of a summed vector may reach this. With weights that add up to at most 1, no sum does either."""


class ExactSum:
    """The running sum of weight * vector over clients."""

    def __init__(self, like: Tensor) -> None:
        self._dtype, self._home = like.dtype, like.device
        # MPS has no float64: its vectors are summed on the CPU.
        self._device = torch.device("cpu") if like.device.type == "mps" else like.device
        self._limbs = [torch.zeros(like.shape, dtype=torch.int64, device=self._device) for _ in LIMBS]

    def add(self, vector: Tensor, weight: float) -> None:
        rest = vector.detach().to(self._device, torch.float64) * weight
        for limb, exponent in zip(self._limbs, LIMBS, strict=True):
            units = torch.round(rest * 2.0**exponent)  # a power of two scales exactly
            limb += units.to(torch.int64)
            rest = rest.sub_(units, alpha=2.0**-exponent)  # exact: units are the leading bits of rest

    def value(self) -> Tensor:
        """The sum, rounded once, in float64."""
        parts = [
            limb.to(torch.float64) * 2.0**-exponent for limb, exponent in zip(self._limbs, LIMBS, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def scaled(self, factor: float) -> Tensor:
        """factor * sum, in the type and place of the vectors that were added."""
        return (self.value() * factor).to(self._dtype).to(self._home)


@dataclass(frozen=True)
class Totals:
    """What the server knows after a round: sums over the cohort of p_i * v_i, and of the shares p_i alone."""

    sums: Mapping[str, ExactSum]
    share: float

    def mean(self, name: str) -> Tensor:
        """Weighted mean over the cohort: sum p_i v_i / sum p_i."""
        return self.sums[name].scaled(1.0 / self.share)

    def sum(self, name: str) -> Tensor:
        """Sum over the cohort of p_i v_i, where the p_i of all N clients add up to 1."""
        return self.sums[name].scaled(1.0)


class Collector:
    """Folds updates into Totals as they arrive; its memory does not grow with their number."""

    def __init__(self) -> None:
        self._sums: dict[str, ExactSum] = {}
        self._share = Fraction(0)  # exact, hence independent of order too

    def fold(self, vectors: Vectors, share: float) -> None:
        for name, vector in vectors.items():
            if name not in self._sums:
                self._sums[name] = ExactSum(vector)
            self._sums[name].add(vector, share)
        self._share += Fraction(share)

    def totals(self) -> Totals:
        assert math.isfinite(float(self._share)) and self._share > 0
        return Totals(self._sums, float(self._share))
