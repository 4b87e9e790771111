"""Lion: Chen, Liang, Huang, Real, Wang, Liu, Pham, Dong, Luong, Hsieh, Lu, Le, "Symbolic Discovery of Optimization
Algorithms", NeurIPS 2023 (arXiv:2302.06675), Algorithm 2.

    theta <- theta - lr (sign(beta_1 m + (1 - beta_1) g) + weight_decay theta),   m <- beta_2 m + (1 - beta_2) g

Every entry moves by lr at every step, however small its gradient: at a constant rate the steps do not shrink near an
optimum, under SCAFFOLD neither. The paper takes rates 3 to 10 times smaller than AdamW's, and a weight decay that much
larger.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.optimizers.stateful import StatefulLanes
from fedopt.vectors.layout import RowLayout


class Lion(Optimizer):
    betas: tuple[Decay, Decay] = Field((0.9, 0.99), strict=False)
    """The weight of the momentum in the step's sign, and the momentum's decay rate."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay, apart from the gradient: a step shrinks a weight by this times the learning rate."""

    is_decoupled: ClassVar[bool] = True

    @property
    def usual_lr(self) -> float:
        return 0.0001

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return LionLanes(theta, self)

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        return ("exp_avg",)


class LionLanes(StatefulLanes):
    def __init__(self, theta: Tensor, settings: Lion) -> None:
        super().__init__(theta, settings.moment_names)
        self._settings = settings

    def step(self, gradient: Gradient) -> None:
        found, mean, (beta1, beta2) = gradient(), self.vector("exp_avg"), self._settings.betas
        direction = mean.lerp(found, 1 - beta1).sign_()
        if self._settings.weight_decay:
            direction.add_(self.active, alpha=self._settings.weight_decay)
        subtract(self.active, self.next_rate(), direction)
        mean.lerp_(found, 1 - beta2)
