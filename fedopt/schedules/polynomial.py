"""Falls as a power of what is left; a straight line by default."""

from __future__ import annotations

from pydantic import Field

from fedopt.schedules.curve import Bounded


class Polynomial(Bounded):
    power: float = Field(1.0, gt=0)
    """1 is a straight line; above 1 the rate falls faster at first."""

    def falling(self, part: float) -> float:
        return float((1 - part) ** self.power)
