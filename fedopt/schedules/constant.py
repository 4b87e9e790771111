"""The same rate at every step of every round."""

from __future__ import annotations

from typing import ClassVar

from fedopt.schedules.base import Schedule


class Constant(Schedule):
    is_constant: ClassVar[bool] = True

    def rate(self, lr: float, round_: int, step: int) -> float:
        return lr
