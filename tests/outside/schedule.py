"""A rate that halves every so many rounds, and falls within a round."""

from __future__ import annotations

from pydantic import Field

from fedopt.schedules.base import Schedule


class Halving(Schedule):
    every: int = Field(2, ge=1)

    def rate(self, lr: float, round_: int, step: int) -> float:
        return lr * 0.5 ** ((round_ - 1) // self.every) / (1 + 0.1 * step)
