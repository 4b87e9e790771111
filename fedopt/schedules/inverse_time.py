"""Falls as 1 / t, as the theory of stochastic gradient descent on strongly convex losses asks for."""

from __future__ import annotations

from pydantic import Field

from fedopt.schedules.curve import Curve


class InverseTime(Curve):
    decay_rate: float = Field(0.1, gt=0)
    """After 1 / decay_rate rounds, or steps, the rate is half of the first."""

    def factor(self, t: int) -> float:
        return 1 / (1 + self.decay_rate * t)
