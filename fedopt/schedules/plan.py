"""The rate of every step of every round: a schedule, a warm-up in front of it, and what they count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from fedopt.schedules.base import Schedule
from fedopt.schedules.curve import Bounded, Curve

Over = Literal["rounds", "steps", "all-steps"]


@dataclass(frozen=True)
class RatePlan:
    """A pure function of the round and of the step within it."""

    lr: float
    schedule: Schedule
    warmup: int = 0
    """The counts before the schedule starts, in which the rate rises in a straight line."""
    over: Over = "rounds"
    steps: int | None = None
    """The most steps of a round; needed to count all steps."""

    @property
    def is_constant(self) -> bool:
        return self.schedule.is_constant and self.warmup == 0

    def rate(self, round_: int, step: int = 0) -> float:
        """Of a step, counted from 0, of a round, counted from 1."""
        t = self._count(round_, step)
        if t < self.warmup:  # neither zero, which would waste a round, nor the full rate
            return self.lr * (t + 1) / (self.warmup + 1)
        if isinstance(self.schedule, Curve):
            return self.lr * self.schedule.factor(t - self.warmup)
        within = self.over == "steps"
        return self.schedule.rate(
            self.lr, round_ if within else round_ - self.warmup, step - self.warmup if within else step
        )

    def _count(self, round_: int, step: int) -> int:
        if self.over == "steps":
            return step
        if self.over == "rounds":
            return round_ - 1
        assert self.steps is not None
        return (round_ - 1) * self.steps + step


@dataclass(frozen=True)
class RateFactors:
    """What the rates of a round are multiplied by. They follow from test losses, so that clients are sent them."""

    local: float = 1.0
    server: float = 1.0


NO_FACTORS = RateFactors()


def with_horizon(schedule: Schedule, warmup: int, end: int | None) -> Schedule:
    """The schedule with the horizon that it has by default where counts go up to `end`, which may be unknown."""
    if not isinstance(schedule, Bounded) or "horizon" in schedule.model_fields_set or end is None:
        return schedule
    completed = BaseModel.model_copy(schedule, update={"horizon": max(1, end - warmup)})
    completed.model_fields_set.discard("horizon")  # not as if it had been given: other rounds give another
    return completed
