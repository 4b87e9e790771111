"""The contract of a learning-rate schedule: a pure function of the round and of the step within it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedopt.family import Family
from fedopt.registry import Registry
from fedopt.schedules import SCHEDULES

Rate = float | Tensor
"""The learning rate of one step: a number, or a tensor that broadcasts against [active lanes, Q]."""


class Schedule(Family, ABC):
    """Base of all schedules; its fields are keys of the experiment's [local] or [server] section."""

    registry: ClassVar[Registry] = SCHEDULES

    is_constant: ClassVar[bool] = False
    """Whether the rate is the same at every step of every round. Then a recorded step may contain it as a number."""
    follows_loss: ClassVar[bool] = False
    """Whether `factor_after` is to be asked, before each round."""

    @abstractmethod
    def rate(self, lr: float, round_: int, step: int) -> float:
        """The rate of a step, counted from 0, of a round, counted from 1; `lr` is the experiment's local.lr."""

    def factor_after(self, losses: Sequence[float]) -> float:
        """What all rates are multiplied by after these test losses, one for each evaluation since the first round."""
        return 1.0


class Rates:
    """The learning rates of a round's steps. Lanes that take fewer steps use the first of them.

    Optimizers must not assume that all lanes of a step have one rate: `at` may return a tensor.
    """

    def __init__(self, per_step: Sequence[float], dtype: torch.dtype, buffer: Tensor | None = None) -> None:
        """`dtype` is that of the vectors. With `buffer`, a tensor of no dimension, `at` always returns this tensor,
        which holds the rate of the step that was chosen last by `choose`."""
        self.per_step, self._buffer = tuple(per_step), buffer
        rounded = np.asarray(self.per_step, dtype=str(dtype).removeprefix("torch."))
        self._used: list[float] = rounded.astype(np.float64).tolist()

    def at(self, step: int) -> Rate:
        return self.per_step[step] if self._buffer is None else self._buffer

    def choose(self, step: int) -> None:
        """Writes the rate of this step to the buffer, if there is one."""
        if self._buffer is not None:
            self._buffer.fill_(self.per_step[step])

    def total(self, steps: int) -> float:
        """The sum of the first rates, each rounded to the vectors' dtype as the steps round it; the sum is exact."""
        return math.fsum(self._used[:steps])


@dataclass(frozen=True)
class Factors:
    """What the rates of a row's entries are multiplied by."""

    row: Tensor
    """[1, Q]"""
    spans: tuple[tuple[int, int, float], ...]
    """The same as a first place, the place behind the last and the factor of all entries between."""


class RowRates(Rates):
    """The rates of others times a factor for each entry of a row: `at` returns [1, Q], made anew at each call."""

    def __init__(self, rates: Rates, factors: Factors) -> None:
        super().__init__((), factors.row.dtype)
        self._rates, self._factors = rates, factors

    def at(self, step: int) -> Tensor:
        return self._factors.row * self._rates.at(step)

    def of_spans(self, step: int) -> Iterator[tuple[int, int, Rate]]:
        """Each span with its rate."""
        rate = self._rates.at(step)
        return ((first, end, rate * factor) for first, end, factor in self._factors.spans)
