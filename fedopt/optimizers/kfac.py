"""K-FAC: Martens, Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML 2015
(arXiv:1503.05671), by curvlinops.

    theta <- theta - lr (F + damping I)^-1 g

g is the corrected gradient. F is the Fisher matrix of the minibatch at theta, a block for each layer: the Kronecker
product of the mean a a^T of the layer's inputs, with a 1 for the bias, and of the mean of the loss's curvature with
respect to its outputs. It is computed anew at every step, without a running mean, without the sampled labels of the
paper (the exact expectation over them), and of the loss alone: what an algorithm or a penalty adds is in g. F is never
negative, so that any damping above 0 goes downhill.

It is for models of linear layers and convolutions under the cross-entropy.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.vectors.layout import RowLayout


class Kfac(Optimizer):
    damping: float = Field(0.1, gt=0)
    """Added to the diagonal of the curvature."""

    can_be_base: ClassVar[bool] = False
    needs_kronecker: ClassVar[bool] = True

    @property
    def takes_groups(self) -> bool:
        return False

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return KfacLanes(theta, self, layout)


class KfacLanes(LaneOptimizer):
    recordable = False

    def __init__(self, theta: Tensor, settings: Kfac, layout: RowLayout) -> None:
        super().__init__(theta)
        self._settings, self._layout = settings, layout

    def step(self, gradient: Gradient) -> None:
        flat = self._layout.unpack(gradient().clone())
        damping = self._settings.damping
        directions = [gradient.kronecker_inverse(lane, damping)(own) for lane, own in enumerate(flat)]
        subtract(self.active, self.next_rate(), self._layout.pack(torch.stack(directions)))
