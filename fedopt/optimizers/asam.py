"""ASAM: Kwon, Kim, Park, Choi, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep
Neural Networks", ICML 2021 (arXiv:2102.11600), Algorithm 1 with p = 2 and the elementwise normalization.

    T = |theta| + eta
    eps <- rho * T^2 g / ||T g||
    step with the gradient at theta + eps, on the same minibatch

so that ||eps / T|| = rho, with one norm over all parameters of a client, and <eps, g> = rho ||T g||. Large weights move
further: the sharpness does not change when layers are scaled so that the function stays the same. Under SCAFFOLD both
gradients are the corrected ones.

T stands twice in eps: once because the ball is an ellipse, once because the step to its worst point is longer along
its long axes. With T once, eps is not the worst point of any ball.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import LaneOptimizer
from fedopt.optimizers.sam import AroundBase, ClimbingLanes
from fedopt.vectors.layout import RowLayout


class Asam(AroundBase):
    rho: float = Field(0.5, ge=0)
    """Radius of the ball, in units of the weights' magnitudes: about ten times that of sam."""
    eta: float = Field(0.01, ge=0)
    """Added to the magnitudes, so that weights near zero move too."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return AsamLanes(theta, self.base.build(theta, layout), self.rho, self.eta)


class AsamLanes(ClimbingLanes):
    """Steps from theta with the gradient at theta + eps."""

    def __init__(self, theta: Tensor, base: LaneOptimizer, rho: float, eta: float) -> None:
        super().__init__(theta, base)
        self._rho, self._eta = rho, eta

    def _climb(self, gradient: Tensor) -> None:
        scale = self.active.abs().add_(self._eta)
        scaled = scale * gradient
        norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        least = torch.finfo(norm.dtype).tiny * (1 + 4 * self._rho)  # so that the quotient stays in range
        self.active.addcmul_(scaled.mul_(scale), self._rho / norm.clamp_(min=least))
