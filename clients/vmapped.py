"""The road for any model on a GPU: all lanes as one computation, by torch.func."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from clients.batches import LaneBatch
from clients.stacked.packing import Packing
from fedopt.parameters import Layout
from fedopt.task import Task


class VmapLanes:
    """Implements `clients.gradients.LaneGradients`; padded samples weigh nothing."""

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int) -> None:
        self.packing = packing = Packing(layout, like)
        self.theta = like.new_zeros(lanes, packing.width)

        def loss(theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
            outputs = functional_call(task.module, packing.views(theta), (x,))
            return (task.loss(outputs, y, reduction="none") * weights).sum()

        self._gradients = vmap(grad_and_value(loss))

    def __call__(self, batch: LaneBatch) -> tuple[Tensor, Tensor]:
        theta = self.theta[: batch.active]
        weights = torch.as_tensor(batch.weights, dtype=theta.dtype, device=theta.device).expand(batch.y.shape)
        gradients, losses = self._gradients(theta, batch.x, batch.y, weights)
        return gradients, losses

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float) -> Tensor:
        gradients, losses = self(batch)
        into[: batch.active].mul_(keep).add_(gradients, alpha=scale)
        return losses
