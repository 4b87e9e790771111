"""SAM: Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
Generalization", ICLR 2021 (arXiv:2010.01412), Algorithm 1 with the p-norm of its equation (2).

    eps <- rho * sign(g) |g|^(q-1) / (||g||_q^q)^(1/p),   1/p + 1/q = 1
    step with the gradient at theta + eps, on the same minibatch

so that ||eps||_p = rho and <eps, g> = rho ||g||_q, with one norm over all parameters of a client. The base optimizer
may be any other. Under SCAFFOLD both gradients are the corrected ones.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fedopt.optimizers.base import Gradient, LaneOptimizer
from fedopt.optimizers.wrapper import Wrapper, WrapperLanes
from fedopt.vectors.layout import RowLayout


class AroundBase(Wrapper):
    """An optimizer that gives a base the gradient at another point."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

    @property
    def vectors_touched(self) -> int:
        return self.base.vectors_touched + 1

    def accumulated(self, rates: Sequence[float], proximal: float = 0.0) -> float | None:
        """Of the gradients at the perturbed points."""
        return self.base.accumulated(rates, proximal)

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer | None:
        """That of the base; the caller finds the gradient."""
        return self.base.torch_optimizer(parameters, lr)


class Sam(AroundBase):
    rho: float = Field(0.05, ge=0)
    """Radius of the ball, in the p-norm over all parameters of a client."""
    p: float = Field(2.0, ge=1, allow_inf_nan=True)
    """The norm of the ball; inf is the largest magnitude."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return SamLanes(theta, self.base.build(theta, layout), self.rho, self.p)


class ClimbingLanes(WrapperLanes, ABC):
    """Steps from theta with the gradient at a worse point."""

    def __init__(self, theta: Tensor, base: LaneOptimizer) -> None:
        super().__init__(theta, base)
        self._saved = torch.empty_like(theta)

    def step(self, gradient: Gradient) -> None:
        self._base.step(self._climbed(gradient))

    def _climbed(self, gradient: Gradient) -> Gradient:
        """The gradient at the worse point."""
        saved = self._saved[: len(self.active)]
        saved.copy_(self.active)
        self._climb(gradient())
        return _AtWorstPoint(gradient, self.active, saved)

    @abstractmethod
    def _climb(self, gradient: Tensor) -> None:
        """Moves the active lanes of theta to their worse points."""


class SamLanes(ClimbingLanes):
    """Steps from theta with the gradient at theta + eps."""

    def __init__(self, theta: Tensor, base: LaneOptimizer, rho: float, p: float) -> None:
        super().__init__(theta, base)
        self._rho, self._p = rho, p

    def _climbed(self, gradient: Gradient) -> Gradient:
        perturbed = gradient.perturbed(self._rho) if self._p == 2 else None
        return super()._climbed(gradient) if perturbed is None else perturbed

    def _climb(self, gradient: Tensor) -> None:
        perturb(self.active, gradient, self._rho, self._p)


class _AtWorstPoint(Gradient):
    """The gradient at theta + eps, where theta is when it is evaluated. Evaluating it moves theta back."""

    def __init__(self, gradient: Gradient, theta: Tensor, saved: Tensor) -> None:
        self._gradient, self._theta, self._saved = gradient, theta, saved

    def __call__(self) -> Tensor:
        found = self._gradient()
        self._move_back()
        return found

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        self._gradient.add_to(target, keep, scale)
        self._move_back()

    def add_to_theta(self, scale: float) -> None:
        self._gradient.add_to(self._saved, 1.0, scale)
        self._move_back()

    def _move_back(self) -> None:
        self._theta.copy_(self._saved)


def perturb(theta: Tensor, gradient: Tensor, rho: float, p: float) -> None:
    """Moves each lane of theta to the worst point of its ball."""
    if p == 2:  # in one pass
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        least = torch.finfo(norm.dtype).tiny * (1 + 4 * rho)  # so that the quotient stays in range
        theta.addcmul_(gradient, rho / norm.clamp_(min=least))
    else:
        theta.add_(ascent(gradient, rho, p))


def ascent(gradient: Tensor, rho: float, p: float) -> Tensor:
    """The step to the worst point of each lane's ball, [lanes, Q]; zero where the gradient is zero."""
    if p == 1:  # q is infinite: the whole step goes along the largest entry
        largest = gradient.abs().argmax(dim=1, keepdim=True)
        sign = gradient.gather(1, largest).sign()
        return torch.zeros_like(gradient).scatter_(1, largest, rho * sign)
    q = 1.0 if math.isinf(p) else p / (p - 1)
    norm = torch.linalg.vector_norm(gradient, ord=q, dim=1, keepdim=True)
    # |g| / ||g||_q first: then neither a tiny nor a huge gradient leaves the range of its type.
    unit = gradient / torch.where(norm > 0, norm, torch.ones_like(norm))
    return rho * unit if q == 2 else rho * unit.sign() * unit.abs() ** (q - 1)
