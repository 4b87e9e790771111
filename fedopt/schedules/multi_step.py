"""Drops by a factor at given counts."""

from __future__ import annotations

import itertools

from pydantic import Field, field_validator

from fedopt.schedules.curve import Curve


class MultiStep(Curve):
    milestones: tuple[int, ...] = Field((50, 75), strict=False)
    """The counts of rounds, or of steps, from which the rate is lower."""
    gamma: float = Field(0.1, gt=0, le=1)
    """The factor of the rate at a drop."""

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if not given or given[0] < 1 or any(a >= b for a, b in itertools.pairwise(given)):
            raise ValueError(f"must be whole numbers above 0 in increasing order, not {list(given)}")
        return given

    def factor(self, t: int) -> float:
        return float(self.gamma ** sum(t >= milestone for milestone in self.milestones))
