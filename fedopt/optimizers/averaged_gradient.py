"""Gradient descent along a running mean of the gradients, as courses write it, sometimes under the name SAG:

    M <- beta M + (1 - beta) (g + weight_decay theta),   theta <- theta - lr M

M starts at zero in each round. It is Polyak's heavy ball ("Some methods of speeding up the convergence of iteration
methods", 1964) with another unit of the rate: sgd with momentum = beta takes the same steps at lr (1 - beta). It is
not the stochastic average gradient of Le Roux, Schmidt and Bach, which has a table of gradients: see sag.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.optimizers.stateful import StatefulLanes
from fedopt.vectors.layout import RowLayout


class AveragedGradient(Optimizer):
    beta: Decay = 0.9
    """The decay rate of the running mean of the gradients."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return AveragedGradientLanes(theta, self)

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("exp_avg",)

    def accumulated(self, rates: Sequence[float], proximal: float = 0.0) -> float:
        moved = mean = 0.0
        for rate in rates:
            mean = self.beta * mean + (1 - self.beta) * (1 - proximal * moved)
            moved += rate * mean
        return moved


class AveragedGradientLanes(StatefulLanes):
    """Gradients are added directly to their mean."""

    def __init__(self, theta: Tensor, settings: AveragedGradient) -> None:
        super().__init__(theta, settings.moment_names)
        self._settings = settings

    def step(self, gradient: Gradient) -> None:
        new = 1 - self._settings.beta
        gradient.add_to(self._vectors["exp_avg"], self._settings.beta, new)
        mean = self.vector("exp_avg")
        if self._settings.weight_decay:
            mean.add_(self.active, alpha=new * self._settings.weight_decay)
        subtract(self.active, self.next_rate(), mean)
