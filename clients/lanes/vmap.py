"""The backend for any model on a GPU: all lanes as one computation, by torch.func."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from clients.lanes.batches import LaneBatch
from clients.lanes.draws import LaneDraws
from clients.lanes.losses import LossSums
from clients.lanes.packing import Packing
from fedopt.task import Task
from fedopt.vectors.layout import Layout


class VmapLanes:
    """Implements `clients.lanes.backends.LaneGradients`; padded samples have weight 0.

    A model that draws random numbers is computed one lane at a time, so that each client draws its own.
    """

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int, draws: LaneDraws | None = None) -> None:
        self.packing = packing = Packing(layout, like)
        self.theta = like.new_zeros(lanes, packing.width)
        self._losses = LossSums(lanes, like)
        self._draws = draws

        def loss(theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
            outputs = functional_call(task.module, packing.views(theta), (x,))
            return (task.loss(outputs, y, reduction="none") * weights).sum()

        self._one_lane = grad_and_value(loss)
        self._gradients = vmap(self._one_lane)

    def __call__(self, batch: LaneBatch, counts: bool = True) -> Tensor:
        theta = self.theta[: batch.active]
        if self._draws is None:
            weights = theta.new_ones(()) if batch.weights is None else batch.weights
            gradients, losses = self._gradients(
                theta, batch.x, batch.y, (weights / batch.width).expand(batch.y.shape[:2])
            )
        else:
            gradients, losses = self._one_at_a_time(batch, theta, self._draws)
        if counts:
            self._losses.add(losses)
        return cast(Tensor, gradients)

    def _one_at_a_time(self, batch: LaneBatch, theta: Tensor, draws: LaneDraws) -> tuple[Tensor, Tensor]:
        found = []
        for lane, (x, y) in enumerate(batch.lanes()):
            with draws.of(lane, batch.step):
                found.append(self._one_lane(theta[lane], x, y, theta.new_full((len(y),), 1.0 / len(y))))
        return torch.stack([gradient for gradient, _ in found]), torch.stack([loss for _, loss in found])

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, counts: bool = True) -> None:
        gradients = self(batch, counts)  # first: `into` may be theta itself
        into[: batch.active].mul_(keep).add_(gradients, alpha=scale)

    def losses(self) -> Tensor:
        return self._losses.take()
