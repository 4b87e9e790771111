"""RAdam: Liu, Jiang, He, Chen, Liu, Gao, Han, "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020
(arXiv:1908.03265), Algorithm 2, as in torch.optim.RAdam.

    m <- beta_1 m + (1 - beta_1) g,   v <- beta_2 v + (1 - beta_2) g^2
    rho_inf = 2 / (1 - beta_2) - 1,   rho_t = rho_inf - 2 t beta_2^t / (1 - beta_2^t)
    if rho_t > 5:  r = sqrt((rho_t - 4) (rho_t - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho_t))
                   theta <- theta - lr r m_hat sqrt(1 - beta_2^t) / (sqrt(v) + eps)
    else:          theta <- theta - lr m_hat,   m_hat = m / (1 - beta_1^t)

With beta_2 = 0.999 the first five steps are those of momentum, without a denominator: a round of few steps is all of
them, unless v travels (`local.state` = average-v), whose t then counts in rho_t.
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


class RAdam(Optimizer):
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), strict=False)
    """Decay rates of the running means of the gradient and of its square."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of the step."""
    weight_decay: float = Field(0.0, ge=0)
    """The factor of the weights that is added to the gradient."""

    @property
    def usual_lr(self) -> float:
        return 0.001

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return RAdamLanes(theta, self)

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq", "step"

    @property
    def second_moment_names(self) -> tuple[str, ...]:
        return "exp_avg_sq", "step"

    @property
    def vectors_touched(self) -> int:
        return 3

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        return torch.optim.RAdam(parameters, lr, self.betas, self.eps, self.weight_decay)


class RAdamLanes(StatefulLanes):
    def __init__(self, theta: Tensor, settings: RAdam) -> None:
        super().__init__(theta, settings.moment_names, settings.second_moment_names, spare=2)
        self._settings, self._has_kernel = settings, fused.has_kernels(theta)

    def step(self, gradient: Gradient) -> None:
        found, rate = decayed(gradient, self.active, self._settings.weight_decay), self.next_rate()
        in_means, in_squares = self.counted()
        if self._has_kernel and not is_row(rate) and not self.has_two_counts:
            self._by_kernel(found, rate, in_means)
        else:
            self._by_operations(found, rate, in_means, in_squares)

    def _by_kernel(self, found: Tensor, rate: Rate, counts: Tensor) -> None:
        """Adam's step at the rate lr r; before rho_t exceeds 5, momentum's."""
        (beta1, beta2), eps = self._settings.betas, self._settings.eps
        means, squares, longest = self.vector("exp_avg"), self.vector("exp_avg_sq"), 2 / (1 - beta2) - 1
        for lanes, steps, lr in fused.blocks(counts[:, 0].tolist(), rate):
            theta, g, mean, square = self.active[lanes], found[lanes], means[lanes], squares[lanes]
            bias2 = -math.expm1(steps * math.log(beta2)) if beta2 else 1.0
            length = longest - 2 * steps * (1 - bias2) / bias2
            if length > 5:
                rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
                fused.adam(theta, g, mean, square, steps, lr * rectified**0.5, (beta1, beta2), eps / bias2**0.5)
            else:
                square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
                theta.add_(mean.lerp_(g, 1 - beta1), alpha=-lr / (1 - beta1**steps))

    def _by_operations(self, found: Tensor, rate: Rate, in_means: Tensor, in_squares: Tensor) -> None:
        (beta1, beta2), eps = self._settings.betas, self._settings.eps
        mean = self.vector("exp_avg").lerp_(found, 1 - beta1)
        squares = self.vector("exp_avg_sq").mul_(beta2).addcmul_(found, found, value=1 - beta2)
        bias2 = one_minus_power(beta2, in_squares)
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * in_squares[:, :1] * (1 - bias2) / bias2
        rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        adaptive, one = length > 5.0, torch.ones_like(bias2)
        scale = torch.where(adaptive, (rectified * bias2).clamp_(min=0.0).sqrt_(), one)
        root = torch.sqrt(squares, out=self.spare(0)).mul_(adaptive)  # of lanes without a denominator it becomes 1
        root.add_(torch.where(adaptive, eps * one, one))
        direction = torch.mul(mean, scale / one_minus_power(beta1, in_means), out=self.spare(1))
        subtract_quotient(self.active, rate, direction, root)
