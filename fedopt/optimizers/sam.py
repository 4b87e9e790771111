"""SAM: Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
Generalization", ICLR 2021 (arXiv:2010.01412), Algorithm 1 with the p-norm of its equation (2).

    eps <- rho * sign(g) |g|^(q-1) / (||g||_q^q)^(1/p),   1/p + 1/q = 1
    step with the gradient at theta + eps, on the same minibatch

so that ||eps||_p = rho and <eps, g> = rho ||g||_q, with one norm over all parameters of a client. The inner
optimizer may be any other; under SCAFFOLD both gradients are the corrected ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.stepper import Gradient, LaneOptimizer, make_optimizer


def perturb(theta: Tensor, gradient: Tensor, rho: float, p: float) -> None:
    """Moves each lane of theta to the worst point of its ball."""
    if p == 2:  # in one pass
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        least = torch.finfo(norm.dtype).tiny * (1 + 4 * rho)  # so that the quotient stays in range
        theta.addcmul_(gradient, rho / norm.clamp_(min=least))
    else:
        theta.add_(ascent(gradient, rho, p))


def ascent(gradient: Tensor, rho: float, p: float) -> Tensor:
    """The step to the worst point of each lane's ball, [lanes, P]; zero where the gradient is zero."""
    if p == 1:  # q is infinite: the whole step goes along the largest entry
        largest = gradient.abs().argmax(dim=1, keepdim=True)
        sign = gradient.gather(1, largest).sign()
        return torch.zeros_like(gradient).scatter_(1, largest, rho * sign)
    q = 1.0 if math.isinf(p) else p / (p - 1)
    norm = torch.linalg.vector_norm(gradient, ord=q, dim=1, keepdim=True)
    # |g| / ||g||_q first: neither a tiny nor a huge gradient leaves the range of its type.
    unit = gradient / torch.where(norm > 0, norm, torch.ones_like(norm))
    return rho * unit if q == 2 else rho * unit.sign() * unit.abs() ** (q - 1)


class SharpnessAware:
    """Wraps any lane optimizer: it steps from theta with the gradient found at theta + eps."""

    def __init__(self, theta: Tensor, inner: LaneOptimizer, rho: float, p: float) -> None:
        self._theta, self._inner, self._rho, self._p = theta, inner, rho, p
        self._here, self._active = torch.empty_like(theta), theta
        self.recordable = inner.recordable

    def begin(self, active: int) -> None:
        self._active = self._theta[:active]
        self._inner.begin(active)

    def step(self, gradient: Gradient) -> None:
        perturbed = gradient.perturbed(self._rho) if self._p == 2 else None
        if perturbed is not None:
            self._inner.step(perturbed)
            return
        here = self._here[: len(self._active)]
        here.copy_(self._active)
        perturb(self._active, gradient(), self._rho, self._p)
        self._inner.step(_GradientAtWorstPoint(gradient, self._theta, self._here, len(self._active)))

    def shrink(self, active: int) -> None:
        self._active = self._theta[:active]
        self._inner.shrink(active)


class _GradientAtWorstPoint(Gradient):
    """The gradient at theta + eps for whoever steps from theta, where theta is put back to."""

    def __init__(self, gradient: Gradient, theta: Tensor, here: Tensor, active: int) -> None:
        self._gradient, self._theta, self._here, self._active = gradient, theta, here, active

    def __call__(self) -> Tensor:
        found = self._gradient()
        self._return()
        return found

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        self._gradient.add_to(self._here if target is self._theta else target, keep, scale)
        self._return()

    def _return(self) -> None:
        self._theta[: self._active].copy_(self._here[: self._active])


def sam(local: LocalSettings, theta: Tensor) -> LaneOptimizer:
    return SharpnessAware(theta, make_optimizer(local.base, local, theta), local.rho, local.p)
