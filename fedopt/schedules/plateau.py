"""Drops when the test loss has stopped falling, as torch's ReduceLROnPlateau with mode "min".

What the rate is follows from the test losses so far, which are in the run's records: a resumed run finds it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from fedopt.schedules.base import Schedule


class Plateau(Schedule):
    follows_loss: ClassVar[bool] = True

    gamma: float = Field(0.1, gt=0, lt=1)
    """The factor of the rate at a drop."""
    patience: int = Field(10, ge=0)
    """Evaluations in a row without a better test loss that are tolerated; the next one drops the rate."""
    threshold: float = Field(1e-4, ge=0, lt=1)
    """By what share of the best test loss another one must lie below it to be better."""
    cooldown: int = Field(0, ge=0)
    """Evaluations after a drop that are not counted."""
    min_factor: float = Field(1e-4, gt=0, le=1)
    """The rate falls to this share of the first, at the lowest."""

    def rate(self, lr: float, round_: int, step: int) -> float:
        return lr

    def factor_after(self, losses: Sequence[float]) -> float:
        factor, best, bad, cooling = 1.0, math.inf, 0, 0
        for loss in losses:
            if loss < best * (1 - self.threshold):
                best, bad = loss, 0
            else:
                bad += 1
            if cooling:
                cooling, bad = cooling - 1, 0
            if bad > self.patience:
                factor, bad, cooling = max(factor * self.gamma, self.min_factor), 0, self.cooldown
        return factor
