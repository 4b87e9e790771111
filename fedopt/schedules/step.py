"""Drops by a factor after every so many counts."""

from __future__ import annotations

from pydantic import Field

from fedopt.schedules.curve import Curve


class Step(Curve):
    step_size: int = Field(30, ge=1)
    """Rounds, or steps, from one drop to the next."""
    gamma: float = Field(0.1, gt=0, le=1)
    """The factor of the rate at a drop."""

    def factor(self, t: int) -> float:
        return float(self.gamma ** (t // self.step_size))
