"""Falls by the same factor at every count."""

from __future__ import annotations

from pydantic import Field

from fedopt.schedules.curve import Curve


class Exponential(Curve):
    gamma: float = Field(0.99, gt=0, le=1)
    """The factor of the rate from one round, or step, to the next."""

    def factor(self, t: int) -> float:
        return float(self.gamma**t)
