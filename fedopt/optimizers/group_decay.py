"""Weight decay that differs from parameter to parameter, around any optimizer that has a weight decay.

It stands around the innermost optimizer, which then has none itself: it is added to the gradient that this one asks
for, or, where it is decoupled, taken from the weights that the step begins with. So sam perturbs without it, as around
an optimizer of torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel
from torch import Tensor

from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer, Samples, subtract
from fedopt.optimizers.wrapper import Wrapper, WrapperLanes
from fedopt.vectors.layout import RowLayout


def row_of(values: Mapping[str, float], others: float, layout: RowLayout, like: Tensor) -> Tensor:
    """[1, Q]: the value of each parameter, or `others`, at all of its entries."""
    row = like.new_full((1, layout.width), others)
    views = layout.views(row)
    for name, value in values.items():
        views[name].fill_(value)
    return row


def decaying(optimizer: Optimizer, decays: Mapping[str, float]) -> Optimizer:
    """With the weight decay of each parameter that is named, whatever wraps the innermost optimizer."""
    if isinstance(optimizer, Wrapper):
        return BaseModel.model_copy(optimizer, update={"base": decaying(optimizer.base, decays)})
    without = optimizer.model_copy(update={"weight_decay": 0.0})
    return Decaying(base=without, own=getattr(optimizer, "weight_decay"), decays=dict(decays))  # noqa: B009


class Decaying(Optimizer):
    """An optimizer without weight decay, and the decay of each parameter."""

    base: Optimizer
    own: float
    """The weight decay of parameters that are not named."""
    decays: dict[str, float]

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        row = row_of(self.decays, self.own, layout, theta)
        kind = DecoupledLanes if self.base.is_decoupled else DecayingLanes
        return kind(theta, self.base.build(theta, layout), row)


class DecayingLanes(WrapperLanes):
    """Adds the decay to the gradient."""

    def __init__(self, theta: Tensor, base: LaneOptimizer, decays: Tensor) -> None:
        """`decays` are [1, Q]."""
        super().__init__(theta, base)
        self.decays = decays

    def step(self, gradient: Gradient) -> None:
        self._base.step(_Decayed(gradient, self))


class _Decayed(Gradient):
    def __init__(self, gradient: Gradient, lanes: DecayingLanes) -> None:
        self._gradient, self._lanes = gradient, lanes

    def __call__(self) -> Tensor:
        found = self._gradient()  # first: it may move theta back to where the step begins
        return torch.addcmul(found, self._lanes.active, self._lanes.decays)

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        self._gradient.add_to(target, keep, scale)
        active = self._lanes.active
        target[: len(active)].addcmul_(active, self._lanes.decays, value=scale)

    def add_to_theta(self, scale: float) -> None:
        self._lanes.active.add_(self(), alpha=scale)

    def samples(self) -> Samples:
        return self._gradient.samples()


class DecoupledLanes(WrapperLanes):
    """Shrinks the weights from which a step begins, apart from the gradient."""

    def __init__(self, theta: Tensor, base: LaneOptimizer, decays: Tensor) -> None:
        super().__init__(theta, base)
        self._decays = decays
        self.start = theta
        """Where theta is when the base has its gradient, [active, Q]."""

    def step(self, gradient: Gradient) -> None:
        self._base.step(_FromStart(gradient, self))
        subtract(self.active, self.next_rate(), self.start * self._decays)


class _FromStart(Gradient):
    def __init__(self, gradient: Gradient, lanes: DecoupledLanes) -> None:
        self._gradient, self._lanes = gradient, lanes

    def __call__(self) -> Tensor:
        found = self._gradient()
        self._lanes.start = self._lanes.active.clone()
        return found

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        found = self()
        target[: len(found)].mul_(keep).add_(found, alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        self._lanes.active.add_(self(), alpha=scale)

    def samples(self) -> Samples:
        return self._gradient.samples()
