"""Minibatch SGD: theta <- theta - lr v,  v <- momentum v + (1 - dampening) (g + weight_decay theta), as in
torch.optim.SGD: the first step takes g without dampening.

Nesterov's momentum (Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
learning", ICML 2013) has two forms, both with the new v on the right:

    torch       v <- momentum v + g(theta),                      theta <- theta - lr (g + momentum v)
    look-ahead  v <- momentum v + g(theta - lr momentum v),      theta <- theta - lr v

The second is how papers and courses write it. At a constant rate and without dampening, torch's theta are the points
theta - lr momentum v at which the second evaluates its gradients: the same gradients, and after K steps models that
differ by lr momentum v_K. Under a rate that changes from step to step they are different methods. Weight decay is a
part of g, so the second takes it of the weights at its own point; the training loss is the one there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.optimizers.stateful import StatefulLanes, decayed
from fedopt.schedules.base import Rates
from fedopt.section import wrong
from fedopt.vectors.layout import RowLayout


class Sgd(Optimizer):
    momentum: Decay = 0.0
    """The momentum factor."""
    nesterov: bool = False
    """Whether to take Nesterov's momentum."""
    nesterov_form: Literal["torch", "look-ahead"] = "torch"
    """Where Nesterov's gradient is evaluated: at the weights, as torch.optim.SGD does, or at the look-ahead point
    theta - lr momentum v."""
    dampening: float = Field(0.0, ge=0, le=1)
    """The share of a gradient that the momentum leaves out, but for the first one."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""

    @model_validator(mode="after")
    def _consistent(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise wrong("nesterov", "needs momentum above 0, for example momentum = 0.9")
        if self.nesterov_form != "torch" and not self.nesterov:
            raise wrong("nesterov_form", "is a form of Nesterov's momentum; set nesterov = true as well")
        if self.dampening and self.momentum == 0:
            raise wrong("dampening", "dampens what the momentum takes in; set momentum above 0, or leave dampening out")
        if self.dampening and self.nesterov:
            raise wrong("dampening", "Nesterov's momentum has none; leave out dampening or nesterov")
        return self

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        if self.is_plain_descent:
            return DescentLanes(theta)
        if self.dampening:
            return DampenedLanes(theta, self)
        if self.moves_first:
            return LookAheadLanes(theta, self.momentum, self.weight_decay)
        return (NesterovLanes if self.nesterov else MomentumLanes)(theta, self.momentum, self.weight_decay)

    @property
    def is_plain_descent(self) -> bool:
        return self.momentum == 0 and self.weight_decay == 0

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        if self.dampening:
            return "momentum", "step"
        return ("momentum",) if self.momentum > 0 else ()

    @property
    def moves_first(self) -> bool:
        return self.nesterov_form == "look-ahead"

    @property
    def vectors_touched(self) -> int:
        return 0 if self.is_plain_descent else 2  # the velocity is written, then read again

    def accumulated(self, rates: Sequence[float], proximal: float = 0.0) -> float:
        moved = velocity = 0.0
        fresh, torchs = 1.0, self.nesterov and not self.moves_first
        for rate in rates:
            ahead = rate * self.momentum * velocity if self.moves_first else 0.0
            gradient = 1.0 - proximal * (moved + ahead)
            velocity = self.momentum * velocity + fresh * gradient
            moved += rate * (gradient + self.momentum * velocity if torchs else velocity)
            fresh = 1.0 - self.dampening
        return moved

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer | None:
        if self.moves_first:
            return None
        return torch.optim.SGD(parameters, lr, self.momentum, self.dampening, self.weight_decay, nesterov=self.nesterov)


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


class LookAheadLanes(_VelocityLanes):
    """A step goes along the momentum first, and from there along the gradient that it finds."""

    def step(self, gradient: Gradient) -> None:
        velocity, rate = self._velocity[: len(self.active)], self.next_rate()
        velocity.mul_(self._momentum)
        subtract(self.active, rate, velocity)
        found = decayed(gradient, self.active, self._decay)
        velocity.add_(found)
        subtract(self.active, rate, found)


class DampenedLanes(StatefulLanes):
    def __init__(self, theta: Tensor, settings: Sgd) -> None:
        super().__init__(theta, settings.moment_names)
        self._settings = settings

    def step(self, gradient: Gradient) -> None:
        settings = self._settings
        found = decayed(gradient, self.active, settings.weight_decay)
        is_first = (self.counted()[0][:, :1] == 1).to(found)
        fresh = is_first * settings.dampening + (1 - settings.dampening)
        velocity = self.vector("momentum").mul_(settings.momentum).addcmul_(found, fresh)
        subtract(self.active, self.next_rate(), velocity)
