"""SGD along the sign of a running mean of gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import RowLayout


class Signum(Optimizer):
    mean: float = Field(0.8, ge=0, lt=1)

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return SignumLanes(theta, self.mean)

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("mean",)


class SignumLanes(LaneOptimizer):
    def __init__(self, theta: Tensor, keep: float) -> None:
        super().__init__(theta)
        self._keep, self._mean = keep, torch.zeros_like(theta)

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._mean[:lanes].zero_()

    def step(self, gradient: Gradient) -> None:
        mean = self._mean[: len(self.active)]
        mean.lerp_(gradient(), 1 - self._keep)
        subtract(self.active, self.next_rate(), mean.sign())

    @property
    def moments(self) -> Mapping[str, Tensor]:
        return {"mean": self._mean[: self.lanes]}

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._mean[: self.lanes].copy_(moments["mean"])
