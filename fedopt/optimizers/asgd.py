"""SGD whose result is the mean of its iterates: Polyak, Juditsky, "Acceleration of Stochastic Approximation by
Averaging", SIAM Journal on Control and Optimization 30(4), 1992; Ruppert 1988. As in torch.optim.ASGD:

    lr_t = lr / (1 + lambd lr (t - 1))^exponent
    z <- (1 - lambd lr_t) z - lr_t (g(z) + weight_decay z)
    theta <- the mean of the z of the steps average_from, ..., t; before that theta <- z

The client evaluates gradients at z, and sends theta. Both start at the server's model in each round. torch's t0 is
average_from - 2: with its t0 = 0 the first iterate is no part of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.optimizers.stateful import decayed
from fedopt.schedules.base import Rate, Rates
from fedopt.vectors.layout import RowLayout


class Asgd(Optimizer):
    lambd: float = Field(0.0, ge=0)
    """How fast the rate falls within a round, and by how much, times the rate, a step shrinks the weights. torch's
    default is 0.0001; 0 leaves the rate to local.schedule."""
    exponent: float = Field(0.75, ge=0)
    """The power of that fall; torch calls it alpha."""
    average_from: int = Field(1, ge=1)
    """The first step of a round whose iterate enters the mean."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return AsgdLanes(theta, self)

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0 or self.lambd > 0

    @property
    def moves_first(self) -> bool:
        return True

    @property
    def starts_anew(self) -> bool:
        return True

    def fall(self, rate: Rate, step: int) -> Rate:
        """The rate of a step, counted from 0."""
        if not self.lambd:
            return rate
        fallen: Rate = rate / (1 + self.lambd * step * rate) ** self.exponent
        return fallen

    def share(self, step: int) -> float:
        """The share of the iterate of a step, counted from 0, in the mean so far."""
        return 1 / max(1, step + 2 - self.average_from)

    def accumulated(self, rates: Sequence[float], proximal: float = 0.0) -> float:
        moved = mean = 0.0
        for step, rate in enumerate(rates):
            fallen = self.fall(rate, step)
            assert isinstance(fallen, float)
            moved += fallen * (1 - proximal * moved)
            mean += self.share(step) * (moved - mean)
        return mean


class AsgdLanes(LaneOptimizer):
    recordable = False

    def __init__(self, theta: Tensor, settings: Asgd) -> None:
        super().__init__(theta)
        self._settings = settings
        self._iterate, self._mean = torch.zeros_like(theta), torch.zeros_like(theta)

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        for vector in (self._iterate, self._mean):
            vector[:lanes].copy_(self.active)

    def step(self, gradient: Gradient) -> None:
        settings, number = self._settings, self._step
        iterate, mean = self._iterate[: len(self.active)], self._mean[: len(self.active)]
        self.active.copy_(iterate)
        found = decayed(gradient, iterate, settings.weight_decay + settings.lambd)
        subtract(iterate, settings.fall(self.next_rate(), number), found)
        mean.add_(iterate - mean, alpha=settings.share(number)) if settings.share(number) < 1 else mean.copy_(iterate)
        self.active.copy_(mean)
