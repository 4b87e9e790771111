"""Runs a local optimizer of fedopt on any function, in float64, on as many lanes as there are start points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.lanes.packing import Packing
from fedopt.optimizers.base import Gradient, Optimizer
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import Layout

GradientOf = Callable[[Tensor, int], Tensor]
"""The gradients at points [lanes, P] in a step, counted from 0; [lanes, P]."""

Projection = Callable[[Tensor], Tensor]
"""The nearest points of a set; [lanes, P] of [lanes, P]."""


def descend(
    optimizer: Optimizer,
    start: Tensor,
    gradient: GradientOf,
    rates: Sequence[float],
    project: Projection | None = None,
    hessian: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The iterates [steps + 1, lanes, P] from `start` [lanes, P]; one step for each rate.

    `project` is applied after every step. `hessian` gives [P, P] at a point [P], for optimizers that ask for it. A
    layer-wise optimizer sees the vector as one parameter.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the vectors are small: threads would wait for each other
    try:
        return _descend(optimizer, start, gradient, rates, project, hessian)
    finally:
        torch.set_num_threads(threads)


def _descend(
    optimizer: Optimizer,
    start: Tensor,
    gradient: GradientOf,
    rates: Sequence[float],
    project: Projection | None,
    hessian: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    packing = Packing(Layout(("w",), (start.shape[1:],)), start)
    theta = packing.pack(start).clone()
    lanes = optimizer.build(theta, packing)
    lanes.begin(len(theta), Rates(rates, theta.dtype))
    asked = _Asked(theta, packing, gradient, hessian)
    path = [start.clone()]
    for step in range(len(rates)):
        asked.step = step
        lanes.step(asked)
        reached = packing.unpack(theta).clone()
        if project is not None:
            reached = project(reached)
            theta.copy_(packing.pack(reached))
        path.append(reached)
    return torch.stack(path)


@dataclass
class _Asked(Gradient):
    """The gradient at the present contents of theta [lanes, Q]."""

    theta: Tensor
    packing: Packing
    of: GradientOf
    curvature: Callable[[Tensor], Tensor] | None
    step: int = 0

    def __call__(self) -> Tensor:
        return self.packing.pack(self.of(self.packing.unpack(self.theta).clone(), self.step)).clone()

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        target.mul_(keep).add_(self(), alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        self.theta.add_(self(), alpha=scale)

    def hessian(self, lane: int) -> Tensor:
        if self.curvature is None:
            return super().hessian(lane)
        return self.curvature(self.packing.unpack(self.theta)[lane])
