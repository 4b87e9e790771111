"""L-BFGS: Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming 45,
1989, by torch.optim.LBFGS, one for each client: an iteration is a local step, with one gradient and no line search.

    theta <- theta - lr B g,   B from the last history_size pairs (theta_{k+1} - theta_k, g_{k+1} - g_k)

The first step of a round is lr min(1, 1 / ||g||_1) g, as in torch. The pairs compare gradients of successive steps, so
these must be of the same samples: batches are full. lr = 1 is the quasi-Newton step. The history starts anew in each
round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fedopt.optimizers.base import Batches, Gradient, LaneOptimizer, Optimizer
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import RowLayout


class Lbfgs(Optimizer):
    history_size: int = Field(10, ge=1)
    """Pairs that are remembered."""

    can_be_base: ClassVar[bool] = False
    batches: ClassVar[Batches] = "full"

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return LbfgsLanes(theta, self)

    @property
    def takes_groups(self) -> bool:
        return False

    @property
    def starts_anew(self) -> bool:
        return True

    @property
    def vectors_touched(self) -> int:
        return 2 * self.history_size + 4

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """torch leaves a step out where it expects too little of it; this one goes on to the last digit."""
        return torch.optim.LBFGS(
            parameters, lr, max_iter=1, tolerance_grad=0.0, tolerance_change=0.0, history_size=self.history_size
        )


class LbfgsLanes(LaneOptimizer):
    recordable = False

    def __init__(self, theta: Tensor, settings: Lbfgs) -> None:
        super().__init__(theta)
        self._settings = settings
        self._parameters = [nn.Parameter(row) for row in theta]
        self._torchs: list[torch.optim.Optimizer] = []

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._torchs = [self._settings.torch_optimizer([row], 1.0) for row in self._parameters[:lanes]]

    def step(self, gradient: Gradient) -> None:
        found, rate = gradient(), self.next_rate()
        rates = rate.expand(len(found), 1)[:, 0].tolist() if isinstance(rate, Tensor) else [rate] * len(found)
        for parameter, own, lr, optimizer in zip(self._parameters, found, rates, self._torchs, strict=False):
            parameter.grad = own.clone()
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step(lambda: 0.0)
