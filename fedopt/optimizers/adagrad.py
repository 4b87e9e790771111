"""Adagrad: Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", JMLR
2011, with a diagonal matrix, as in torch.optim.Adagrad:

    G <- G + g^2,   theta <- theta - lr g / (sqrt(G) + eps)

G starts at initial_accumulator_value in each round. torch's lr_decay is a schedule's business here.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from fedopt.optimizers import fused
from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer, is_row, subtract_quotient
from fedopt.optimizers.stateful import StatefulLanes, decayed
from fedopt.vectors.layout import RowLayout


class Adagrad(Optimizer):
    initial_accumulator_value: float = Field(0.0, ge=0)
    """What the sum of squares starts at."""
    eps: float = Field(1e-10, gt=0)
    """Added to the denominator of the step."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return AdagradLanes(theta, self)

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        """The sum of squares without its initial value: what a client has not begun is zero."""
        return ("sum",)

    @property
    def second_moment_names(self) -> tuple[str, ...]:
        return ("sum",)

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adagrad(
            parameters,
            lr,
            weight_decay=self.weight_decay,
            initial_accumulator_value=self.initial_accumulator_value,
            eps=self.eps,
        )


class AdagradLanes(StatefulLanes):
    def __init__(self, theta: Tensor, settings: Adagrad) -> None:
        super().__init__(theta, settings.moment_names, settings.second_moment_names, spare=1)
        self._settings = settings
        self._has_kernel = fused.has_kernels(theta) and settings.initial_accumulator_value == 0

    def step(self, gradient: Gradient) -> None:
        settings, rate = self._settings, self.next_rate()
        found, squares = decayed(gradient, self.active, settings.weight_decay), self.vector("sum")
        if self._has_kernel and not is_row(rate):
            for lanes, _, own in fused.blocks([0.0] * len(found), rate):
                fused.adagrad(self.active[lanes], found[lanes], squares[lanes], own, settings.eps)
            return
        squares.addcmul_(found, found)
        if settings.initial_accumulator_value:
            squares = torch.add(squares, settings.initial_accumulator_value, out=self.spare())
        root = torch.sqrt(squares, out=self.spare()).add_(settings.eps)
        subtract_quotient(self.active, rate, found, root)
