"""LARS: You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017 (arXiv:1708.03888), Algorithm 1.

    lambda = trust |w| / (|g| + weight_decay |w|)    for each parameter tensor w and its gradient g
    v <- momentum v + lr lambda (g + weight_decay w),   w <- w - v

The rate stands inside the momentum, other than in sgd: under a schedule a step taken at a high rate goes on at it. A
tensor whose weights or gradients are all zero has lambda = 1. A step's length does not depend on the size of the
gradient, so that at a constant rate the steps do not shrink near an optimum; larc with mode = "clip" does.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer
from fedopt.optimizers.layerwise import scale_tensors, trust_ratios
from fedopt.optimizers.stateful import StatefulLanes
from fedopt.vectors.layout import RowLayout


class Lars(Optimizer):
    momentum: Decay = 0.0
    """The momentum factor; 0.9 in the paper."""
    trust: float = Field(0.001, gt=0)
    """How far a tensor moves in a step at rate 1, in units of its norm."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""
    skip_vectors: bool = False
    """Whether vectors and scalars, as biases and the scales of norms, keep the plain rate."""

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return LarsLanes(theta, self, layout)

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def takes_group_decay(self) -> bool:
        return False  # it enters the layer-wise rate

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()


class LarsLanes(StatefulLanes):
    def __init__(self, theta: Tensor, settings: Lars, layout: RowLayout) -> None:
        super().__init__(theta, settings.moment_names)
        self._settings, self._layout = settings, layout

    def step(self, gradient: Gradient) -> None:
        settings, layout = self._settings, self._layout
        found = gradient()
        ratios = trust_ratios(self.active, found, layout, settings.trust, settings.weight_decay, settings.skip_vectors)
        found = found.add(self.active, alpha=settings.weight_decay)
        scale_tensors(found, ratios, layout)
        step = found.mul_(self.next_rate())
        if settings.momentum:
            step = self.vector("momentum").mul_(settings.momentum).add_(step)
        self.active.sub_(step)
