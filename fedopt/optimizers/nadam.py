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

from fedopt.optimizers import fused
from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, is_row, subtract_quotient
from fedopt.optimizers.stateful import StatefulLanes, decayed, one_minus_power
from fedopt.schedules.base import Rate
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
        super().__init__(theta, settings.moment_names, settings.second_moment_names, (MOMENTUM_WEIGHT,), spare=2)
        self._settings, self._has_kernel = settings, fused.has_kernels(theta)

    def step(self, gradient: Gradient) -> None:
        found, rate = decayed(gradient, self.active, self._settings.weight_decay), self.next_rate()
        in_means, in_squares = self.counted()
        mu, mu_next = self._mu(in_means), self._mu(in_means + 1)
        weight = self.number(MOMENTUM_WEIGHT)
        weight.mul_(mu).add_(1 - mu)
        now = weight[:, :1]
        ahead = now * mu_next + (1 - mu_next)
        # m_hat is of_mean m + of_gradient g
        of_mean, of_gradient = mu_next / ahead, (1 - mu) / now
        if self._has_kernel and not is_row(rate) and not self.has_two_counts:
            self._by_kernel(found, rate, in_means, of_mean, of_gradient)
        else:
            self._by_operations(found, rate, in_squares, of_mean, of_gradient)

    def _by_kernel(self, found: Tensor, rate: Rate, counts: Tensor, of_mean: Tensor, of_gradient: Tensor) -> None:
        """Adam's step with another beta_1: of_mean m + of_gradient g with the new m = beta_1 m' + (1 - beta_1) g is
        (of_mean + of_gradient) (beta m' + (1 - beta) g), where beta = of_mean beta_1 / (of_mean + of_gradient)."""
        (beta1, beta2), eps = self._settings.betas, self._settings.eps
        mean, squares = self.vector("exp_avg"), self.vector("exp_avg_sq")
        ahead = self.spare(0).copy_(mean)
        mean.lerp_(found, 1 - beta1)
        for lanes, steps, lr in fused.blocks(counts[:, 0].tolist(), rate):
            # the same for all lanes of a block, since momentum weights follow from the count of steps
            both = (of_mean + of_gradient)[lanes.start].item()
            beta = of_mean[lanes.start].item() * beta1 / both
            tensors = self.active[lanes], found[lanes], ahead[lanes], squares[lanes]
            fused.adam(*tensors, steps, lr * both * (1 - beta**steps), (beta, beta2), eps)

    def _by_operations(self, found: Tensor, rate: Rate, counts: Tensor, of_mean: Tensor, of_gradient: Tensor) -> None:
        (beta1, beta2), eps = self._settings.betas, self._settings.eps
        mean = self.vector("exp_avg").lerp_(found, 1 - beta1)
        squares = self.vector("exp_avg_sq").mul_(beta2).addcmul_(found, found, value=1 - beta2)
        # m_hat / (sqrt(v / bias) + eps) with both sides multiplied by sqrt(bias), which is one number a lane
        bias = one_minus_power(beta2, counts).sqrt_()
        root = torch.sqrt(squares, out=self.spare(0)).add_(bias * eps)
        direction = torch.mul(mean, bias * of_mean, out=self.spare(1)).addcmul_(found, bias * of_gradient)
        subtract_quotient(self.active, rate, direction, root)

    def _mu(self, steps: Tensor) -> Tensor:
        """[active, 1]"""
        decay = torch.exp(steps * (math.log(0.96) * self._settings.momentum_decay))
        return self._settings.betas[0] * (1 - 0.5 * decay[:, :1])
