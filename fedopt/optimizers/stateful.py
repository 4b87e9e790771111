"""Lanes of an optimizer that keeps vectors between steps, by name, and numbers of a lane, as a count of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedopt.optimizers.base import Gradient, LaneOptimizer
from fedopt.schedules.base import Rates
from fedopt.vectors.rows import ROW_UNIT

COUNT = "step"
"""The moment that is a lane's count of steps. Such a number travels as a vector, the same at every entry."""


class StatefulLanes(LaneOptimizer):
    """Its vectors and numbers are zero at the start of a round, unless they are loaded."""

    def __init__(
        self,
        theta: Tensor,
        names: Sequence[str],
        second: Sequence[str] = (),
        numbers: Sequence[str] = (),
        spare: int = 0,
    ) -> None:
        """`names` are the optimizer's `moment_names`, `second` its `second_moment_names`, `numbers` those of which a
        lane has one, beside its count. `spare` is how many vectors a step needs for itself."""
        super().__init__(theta)
        self._names, self._second = tuple(names), tuple(second)
        self._vectors = {name: torch.zeros_like(theta) for name in names if name not in (COUNT, *numbers)}
        unit = min(theta.shape[1], ROW_UNIT // theta.element_size())
        self._numbers = {name: theta.new_zeros(len(theta), unit) for name in (COUNT, *numbers)}
        """One of each lane, in a whole row, since exponentials differ in the last bit at its rest; steps in moments."""
        self._before = theta.new_zeros(len(theta), unit)
        """Steps that only the second moments have seen, a mean over clients."""
        self._loaded_second = False
        self._spare = [torch.empty_like(theta) for _ in range(spare)]

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        for buffer in (*self._vectors.values(), *self._numbers.values(), self._before):
            buffer[:lanes].zero_()
        self._loaded_second = False

    def vector(self, name: str) -> Tensor:
        """A vector of the active lanes, [active, Q]."""
        return self._vectors[name][: len(self.active)]

    def number(self, name: str) -> Tensor:
        """A number of the active lanes, [active, unit], the same along a row."""
        return self._numbers[name][: len(self.active)]

    def spare(self, which: int = 0) -> Tensor:
        """Memory for the length of a step, [active, Q]: a new tensor a step costs more than a pass over it."""
        return self._spare[which][: len(self.active)]

    def counted(self) -> tuple[Tensor, Tensor]:
        """Counts this step. The steps in the first moments and in the second ones, [active, unit] each."""
        counts = self.number(COUNT)
        counts += 1
        return counts, counts + self._before[: len(self.active)]

    @property
    def moments(self) -> Mapping[str, Tensor]:
        numbers = {**self._numbers, COUNT: self._numbers[COUNT] + self._before}
        of_lanes = {name: number[:, :1].expand_as(self.theta) for name, number in numbers.items()} | self._vectors
        return {name: of_lanes[name][: self.lanes] for name in self._names}

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._load(moments, self._names, self._numbers[COUNT])

    @property
    def has_two_counts(self) -> bool:
        """Whether the second moments may have seen more steps than the first ones."""
        return self._loaded_second

    def load_second_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._loaded_second = True
        if not self._second:
            super().load_second_moments(moments)
        self._load(moments, self._second, self._before)

    def _load(self, moments: Mapping[str, Tensor], names: Sequence[str], counts: Tensor) -> None:
        for name in names:
            if name in self._numbers:
                target = counts if name == COUNT else self._numbers[name]
                target[: self.lanes].copy_(moments[name][:, :1])
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
