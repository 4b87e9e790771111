"""RMSProp: Tieleman, Hinton, "Lecture 6.5: rmsprop", Coursera 2012; centered as in Graves, "Generating Sequences With
Recurrent Neural Networks", 2013 (arXiv:1308.0850). As in torch.optim.RMSprop:

    v <- smoothing v + (1 - smoothing) g^2,   m <- smoothing m + (1 - smoothing) g
    d = sqrt(v) + eps,   or sqrt(v - m^2) + eps (centered)
    b <- momentum b + g / d,   theta <- theta - lr b

There is no bias correction: v starts at zero, and the first steps of a round are long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from fedopt.optimizers import fused
from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, is_row, subtract
from fedopt.optimizers.stateful import StatefulLanes, decayed
from fedopt.vectors.layout import RowLayout


class RmsProp(Optimizer):
    smoothing: Decay = 0.99
    """The decay rate of the running mean of squared gradients; torch calls it alpha."""
    centered: bool = False
    """Whether to divide by an estimate of the standard deviation and not of the root mean square."""
    momentum: Decay = 0.0
    """The momentum factor of the scaled gradients."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of the step."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""

    @property
    def usual_lr(self) -> float:
        return 0.001

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return RmsPropLanes(theta, self)

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("exp_avg_sq", *(("exp_avg",) if self.centered else ()), *(("momentum",) if self.momentum else ()))

    @property
    def second_moment_names(self) -> tuple[str, ...]:
        return ("exp_avg_sq",)

    @property
    def vectors_touched(self) -> int:
        return 1 + len(self.moment_names)

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(
            parameters, lr, self.smoothing, self.eps, self.weight_decay, self.momentum, self.centered
        )


class RmsPropLanes(StatefulLanes):
    def __init__(self, theta: Tensor, settings: RmsProp) -> None:
        super().__init__(theta, settings.moment_names, settings.second_moment_names, spare=1)
        self._settings = settings
        self._has_kernel = fused.has_kernels(theta) and not settings.centered and not settings.momentum

    def step(self, gradient: Gradient) -> None:
        settings, new, rate = self._settings, 1 - self._settings.smoothing, self.next_rate()
        found = decayed(gradient, self.active, settings.weight_decay)
        if self._has_kernel and not is_row(rate):
            # Adam's step whose first moment forgets at once, so many steps on that no bias is left
            squares, betas = self.vector("exp_avg_sq"), (0.0, settings.smoothing)
            ahead = self.spare().zero_()  # 0 times what is not finite would not be 0
            for lanes, steps, lr in fused.blocks([math.inf] * len(found), rate):
                tensors = self.active[lanes], found[lanes], ahead[lanes], squares[lanes]
                fused.adam(*tensors, steps, lr, betas, settings.eps)
            return
        squares = self.vector("exp_avg_sq").mul_(settings.smoothing).addcmul_(found, found, value=new)
        if settings.centered:
            mean = self.vector("exp_avg").lerp_(found, new)
            # Where a gradient never changes, rounding could leave less than nothing.
            root = squares.addcmul(mean, mean, value=-1.0).clamp_(min=0.0).sqrt_()
        else:
            root = torch.sqrt(squares, out=self.spare())
        direction = found / root.add_(settings.eps)
        if settings.momentum:
            direction = self.vector("momentum").mul_(settings.momentum).add_(direction)
        subtract(self.active, rate, direction)
