"""The road for any model on a GPU: all lanes as one computation, by torch.func."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from clients.batches import LaneBatch
from clients.losses import LossSums
from clients.stacked.packing import Packing
from fedopt.parameters import Layout
from fedopt.task import Task


class VmapLanes:
    """Implements `clients.gradients.LaneGradients`; padded samples weigh nothing."""

    classes: int | None = None

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int) -> None:
        self.packing = packing = Packing(layout, like)
        self.theta = like.new_zeros(lanes, packing.width)
        self._losses = LossSums(lanes, like)

        def loss(theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
            outputs = functional_call(task.module, packing.views(theta), (x,))
            return (task.loss(outputs, y, reduction="none") * weights).sum()

        self._gradients = vmap(grad_and_value(loss))

    def __call__(self, batch: LaneBatch, counts: bool = True) -> Tensor:
        theta = self.theta[: batch.active]
        weights = theta.new_ones(()) if batch.weights is None else batch.weights
        gradients, losses = self._gradients(theta, batch.x, batch.y, (weights / batch.width).expand(batch.y.shape))
        if counts:
            self._losses.add(losses)
        return cast(Tensor, gradients)

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, counts: bool = True) -> None:
        into[: batch.active].mul_(keep).add_(self(batch, counts), alpha=scale)

    def uphill(self, batch: LaneBatch) -> None:
        return None

    def settle(self) -> None:
        pass

    def holds(self) -> None:
        return None

    def losses(self) -> Tensor:
        return self._losses.take()
