"""Damped Newton steps: Levenberg 1944; Nocedal, Wright, "Numerical Optimization", 2006, chapter 3.4.

    theta <- theta - lr (H + damping I)^-1 g

g is the corrected gradient on the minibatch and H its derivative: the Hessian of the minibatch's loss, with what the
algorithm adds, such as mu I under FedProx. H is dense, [P, P], one client at a time, and so for small models alone.
damping keeps the steps short along directions of little curvature. It must be above the magnitude of H's negative
eigenvalues, which networks have: along these a smaller one goes uphill.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedopt.errors import InvalidExperiment
from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.vectors.layout import RowLayout


class Newton(Optimizer):
    damping: float = Field(0.1, ge=0)
    """Added to the diagonal of the Hessian."""
    most_parameters: int = Field(4096, ge=1)
    """The largest model that may be tried: the Hessian has the square of its parameters as entries."""

    can_be_base: ClassVar[bool] = False
    needs_hessian: ClassVar[bool] = True

    @property
    def takes_groups(self) -> bool:
        return False

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        size, each = layout.layout.size, theta.element_size()
        if size > self.most_parameters:
            memory = f"{size * size * each / 2**30:,.1f} GiB a client"
            raise InvalidExperiment(
                f"local.optimizer: newton solves with the Hessian of all {size:,} parameters, which takes {memory}; "
                f"it is for models of at most local.most_parameters = {self.most_parameters:,}"
            )
        return NewtonLanes(theta, self, layout)


class NewtonLanes(LaneOptimizer):
    recordable = False

    def __init__(self, theta: Tensor, settings: Newton, layout: RowLayout) -> None:
        super().__init__(theta)
        self._settings, self._layout = settings, layout

    def step(self, gradient: Gradient) -> None:
        found = gradient().clone()
        flat, directions = self._layout.unpack(found), []
        for lane, own in enumerate(flat):
            hessian = gradient.hessian(lane)
            hessian.diagonal().add_(self._settings.damping)
            directions.append(torch.linalg.solve(hessian, own))
        subtract(self.active, self.next_rate(), self._layout.pack(torch.stack(directions)))
