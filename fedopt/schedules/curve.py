"""Schedules that are a function of one count t = 0, 1, 2, ...: of rounds or of steps, as `schedule_over` says."""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field

from fedopt.errors import InvalidExperiment
from fedopt.schedules.base import Schedule


class Curve(Schedule):
    @abstractmethod
    def factor(self, t: int) -> float:
        """The rate at count t over the rate at the start."""

    def rate(self, lr: float, round_: int, step: int) -> float:
        """Over rounds; a `RatePlan` counts in other ways."""
        return lr * self.factor(round_ - 1)


class Bounded(Curve):
    """A curve with an end. Whoever goes on beyond it keeps the last rate, which is above zero."""

    horizon: int | None = Field(None, ge=1)
    """The count at which the curve would reach its end; by default the end of what schedule_over counts, so run.rounds
    where it counts rounds. Warm-up comes before it and is not in it."""
    min_factor: float = Field(0.0, ge=0, le=1)
    """The rate at the end over that at the start."""

    def factor(self, t: int) -> float:
        if self.horizon is None:
            raise InvalidExperiment(f"{self.name} needs horizon, a number of rounds or steps")
        return self.min_factor + (1 - self.min_factor) * self.falling(min(t, self.horizon - 1) / self.horizon)

    @abstractmethod
    def falling(self, part: float) -> float:
        """From 1 to 0 as `part` goes from 0 to 1."""
