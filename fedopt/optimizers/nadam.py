"""NAdam: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR Workshop 2016, as in torch.optim.NAdam.

    mu_t = beta_1 (1 - 0.96^(t momentum_decay) / 2)
    m <- beta_1 m + (1 - beta_1) g,   v <- beta_2 v + (1 - beta_2) g^2
    m_hat = mu_{t+1} m / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) g / (1 - mu_1 ... mu_t)
    theta <- theta - lr m_hat / (sqrt(v / (1 - beta_2^t)) + eps)

A lane keeps 1 - mu_1 ... mu_t, which starts at zero like the other moments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.optimizers.stateful import StatefulLanes, decayed, one_minus_power
from fedopt.vectors.layout import RowLayout

MOMENTUM_WEIGHT = "momentum_weight"


class NAdam(Optimizer):
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), strict=False)
    """Decay rates of the running means of the gradient and of its square."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of the step."""
    momentum_decay: float = Field(4e-3, ge=0)
    """How fast the momentum mu_t rises from beta_1 / 2 towards beta_1."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""

    @property
    def usual_lr(self) -> float:
        return 0.001

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return NAdamLanes(theta, self)

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq", MOMENTUM_WEIGHT, "step"

    @property
    def second_moment_names(self) -> tuple[str, ...]:
        return "exp_avg_sq", "step"

    @property
    def vectors_touched(self) -> int:
        return 4

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.NAdam(parameters, lr, self.betas, self.eps, self.weight_decay, self.momentum_decay)


class NAdamLanes(StatefulLanes):
    def __init__(self, theta: Tensor, settings: NAdam) -> None:
        super().__init__(theta, settings.moment_names, settings.second_moment_names)
        self._settings = settings

    def step(self, gradient: Gradient) -> None:
        settings, (beta1, beta2) = self._settings, self._settings.betas
        found = decayed(gradient, self.active, settings.weight_decay)
        in_means, in_squares = self.counted()
        mean = self.vector("exp_avg").lerp_(found, 1 - beta1)
        squares = self.vector("exp_avg_sq").mul_(beta2).addcmul_(found, found, value=1 - beta2)
        mu, mu_next = self._mu(in_means), self._mu(in_means + 1)
        weight = self.vector(MOMENTUM_WEIGHT)
        weight.mul_(mu).add_(1 - mu)
        now = weight[:, :1]
        ahead = now * mu_next + (1 - mu_next)
        root = (squares / one_minus_power(beta2, in_squares)).sqrt_().add_(settings.eps)
        direction = (mean * (mu_next / ahead)).addcmul_(found, (1 - mu) / now).div_(root)
        subtract(self.active, self.next_rate(), direction)

    def _mu(self, steps: Tensor) -> Tensor:
        """[active, 1]"""
        decay = torch.exp(steps * (math.log(0.96) * self._settings.momentum_decay))
        return self._settings.betas[0] * (1 - 0.5 * decay[:, :1])
