"""AMSGrad: Reddi, Kale, Kumar, "On the Convergence of Adam and Beyond", ICLR 2018 (arXiv:1904.09237), Algorithm 2.

    m <- beta_1 m + (1 - beta_1) g,   v <- beta_2 v + (1 - beta_2) g^2,   v_max <- max(v_max, v)
    theta <- theta - lr m / sqrt(v_max)

There is no bias correction, unlike in torch.optim.Adam(amsgrad=True). v and v_max start at eps^2, not at 0, so that
nothing is added to the denominator. Where they go on from the rounds before, both start at the mean of the v_max.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import RowLayout


class Amsgrad(Optimizer):
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), strict=False)
    """Decay rates of the running means of the gradient and of its square."""
    eps: float = Field(1e-3, gt=0)
    """Smallest denominator of the step."""

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return AmsgradLanes(theta, self)

    @property
    def usual_lr(self) -> float:
        return 0.001

    @property
    def moment_names(self) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq", "max_exp_avg_sq"

    @property
    def second_moment_names(self) -> tuple[str, ...]:
        return ("max_exp_avg_sq",)

    @property
    def vectors_touched(self) -> int:
        return 3


class AmsgradLanes(LaneOptimizer):
    def __init__(self, theta: Tensor, settings: Amsgrad) -> None:
        super().__init__(theta)
        self._settings = settings
        self._means, self._squares, self._largest = (torch.zeros_like(theta) for _ in range(3))

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._means[:lanes].zero_()
        for squares in (self._squares, self._largest):
            squares[:lanes].fill_(self._settings.eps**2)

    def step(self, gradient: Gradient) -> None:
        found, (beta1, beta2) = gradient(), self._settings.betas
        means, squares, largest = (v[: len(self.active)] for v in (self._means, self._squares, self._largest))
        means.lerp_(found, 1 - beta1)
        squares.mul_(beta2).addcmul_(found, found, value=1 - beta2)
        torch.maximum(largest, squares, out=largest)
        subtract(self.active, self.next_rate(), means / largest.sqrt())

    @property
    def moments(self) -> Mapping[str, Tensor]:
        return {
            "exp_avg": self._means[: self.lanes],
            "exp_avg_sq": self._squares[: self.lanes],
            "max_exp_avg_sq": self._largest[: self.lanes],
        }

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._means[: self.lanes].copy_(moments["exp_avg"])
        self._load_squares(moments["exp_avg_sq"], moments["max_exp_avg_sq"])

    def load_second_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._load_squares(moments["max_exp_avg_sq"], moments["max_exp_avg_sq"])

    def _load_squares(self, squares: Tensor, largest: Tensor) -> None:
        """Before the first round both are zero, and stay eps^2 here."""
        for target, found in ((self._squares, squares), (self._largest, largest)):
            rows = target[: self.lanes]
            torch.where(largest > 0, found, rows, out=rows)
