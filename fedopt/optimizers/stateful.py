"""Lanes of an optimizer that keeps vectors between steps, by name, and a count of steps where it needs one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedopt.optimizers.base import Gradient, LaneOptimizer
from fedopt.schedules.base import Rates
from fedopt.vectors.rows import ROW_UNIT

COUNT = "step"
"""The moment that is a lane's count of steps, the same at every entry of its row."""


class StatefulLanes(LaneOptimizer):
    """Its vectors and counts are zero at the start of a round, unless they are loaded."""

    def __init__(self, theta: Tensor, names: Sequence[str], second: Sequence[str] = ()) -> None:
        """`names` are the optimizer's `moment_names`, `second` its `second_moment_names`."""
        super().__init__(theta)
        self._names, self._second = tuple(names), tuple(second)
        self._vectors = {name: torch.zeros_like(theta) for name in names if name != COUNT}
        unit = min(theta.shape[1], ROW_UNIT // theta.element_size())
        self._counts = theta.new_zeros(len(theta), unit)
        """Steps of each lane in its moments: in a whole row, since exponentials differ in the last bit at its rest."""
        self._before = theta.new_zeros(len(theta), unit)
        """Steps that only the second moments have seen, a mean over clients."""

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        for buffer in (*self._vectors.values(), self._counts, self._before):
            buffer[:lanes].zero_()

    def vector(self, name: str) -> Tensor:
        """A vector of the active lanes, [active, Q]."""
        return self._vectors[name][: len(self.active)]

    def counted(self) -> tuple[Tensor, Tensor]:
        """Counts this step. The steps in the first moments and in the second ones, [active, unit] each."""
        counts = self._counts[: len(self.active)]
        counts += 1
        return counts, counts + self._before[: len(self.active)]

    @property
    def moments(self) -> Mapping[str, Tensor]:
        counts = (self._counts + self._before)[: self.lanes, :1].expand(self.lanes, self.theta.shape[1])
        return {name: counts if name == COUNT else self._vectors[name][: self.lanes] for name in self._names}

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._load(moments, self._names, self._counts)

    def load_second_moments(self, moments: Mapping[str, Tensor]) -> None:
        if not self._second:
            super().load_second_moments(moments)
        self._load(moments, self._second, self._before)

    def _load(self, moments: Mapping[str, Tensor], names: Sequence[str], counts: Tensor) -> None:
        for name in names:
            if name == COUNT:
                counts[: self.lanes].copy_(moments[name][:, :1])
            else:
                self._vectors[name][: self.lanes].copy_(moments[name])


def decayed(gradient: Gradient, theta: Tensor, weight_decay: float) -> Tensor:
    """The gradient with weight_decay * theta added, [active, Q]."""
    found = gradient()
    return found.add(theta, alpha=weight_decay) if weight_decay else found


def one_minus_power(beta: float, counts: Tensor) -> Tensor:
    """1 - beta^t of each lane, [active, 1], without a difference: float32 has too few digits for beta^t near 1."""
    if beta == 0:
        return torch.ones_like(counts[:, :1])
    return -torch.expm1(counts * math.log(beta))[:, :1]
