"""Minibatch SGD: theta <- theta - lr v,  v <- momentum v + g + weight_decay theta, as in torch.optim.SGD.

With Nesterov's momentum (Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
learning", ICML 2013), theta <- theta - lr (g + weight_decay theta + momentum v), with the new v.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.schedules.base import Rates
from fedopt.section import wrong
from fedopt.vectors.layout import RowLayout


class Sgd(Optimizer):
    momentum: Decay = 0.0
    """The momentum factor."""
    nesterov: bool = False
    """Whether to take Nesterov's momentum."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""

    @model_validator(mode="after")
    def _consistent(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise wrong("nesterov", "needs momentum above 0, for example momentum = 0.9")
        return self

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        if self.is_plain_descent:
            return DescentLanes(theta)
        return (NesterovLanes if self.nesterov else MomentumLanes)(theta, self.momentum, self.weight_decay)

    @property
    def is_plain_descent(self) -> bool:
        return self.momentum == 0 and self.weight_decay == 0

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum > 0 else ()

    @property
    def vectors_touched(self) -> int:
        return 0 if self.is_plain_descent else 2  # the velocity is written, then read again

    def accumulated(self, rates: Sequence[float], proximal: float = 0.0) -> float:
        moved = velocity = 0.0
        for rate in rates:
            gradient = 1.0 - proximal * moved
            velocity = self.momentum * velocity + gradient
            moved += rate * (gradient + self.momentum * velocity if self.nesterov else velocity)
        return moved

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr, self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay)


class DescentLanes(LaneOptimizer):
    """Gradients are added directly to theta."""

    def step(self, gradient: Gradient) -> None:
        rate = self.next_rate()
        if isinstance(rate, Tensor):
            subtract(self.active, rate, gradient())
        else:
            gradient.add_to_theta(-rate)


class _VelocityLanes(LaneOptimizer):
    def __init__(self, theta: Tensor, momentum: float, weight_decay: float) -> None:
        super().__init__(theta)
        self._momentum, self._decay = momentum, weight_decay
        self._velocity = torch.zeros_like(theta)

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._velocity[:lanes].zero_()

    @property
    def moments(self) -> Mapping[str, Tensor]:
        return {"momentum": self._velocity[: self.lanes]} if self._momentum else {}

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        if self._momentum:
            self._velocity[: self.lanes].copy_(moments["momentum"])


class MomentumLanes(_VelocityLanes):
    """Heavy-ball momentum, weight decay, or both. Gradients are added directly to the velocity.

    Weight decay alone needs the velocity as a buffer: float32 has too few digits for theta * (1 - lr * decay).
    """

    def step(self, gradient: Gradient) -> None:
        gradient.add_to(self._velocity, self._momentum, 1.0)
        velocity = self._velocity[: len(self.active)]
        if self._decay:
            velocity.add_(self.active, alpha=self._decay)
        subtract(self.active, self.next_rate(), velocity)


class NesterovLanes(_VelocityLanes):
    """A step goes along the gradient and along the updated momentum."""

    def step(self, gradient: Gradient) -> None:
        found = gradient()
        if self._decay:
            found = found.add(self.active, alpha=self._decay)
        velocity = self._velocity[: len(self.active)]
        velocity.mul_(self._momentum).add_(found)
        subtract(self.active, self.next_rate(), found.add(velocity, alpha=self._momentum))
