"""The backend for any model on a CPU: one replica of the module per lane, differentiated by autograd.

A lane's result is the same to the bit for any number of lanes, by construction. It is never slower than the plain loop:
several lanes share the overhead of one backward pass.

BatchNorm normalizes by the statistics of each minibatch, and the forward pass of each step updates the running ones,
as torch does. A step's further passes, such as SAM's second one, at the perturbed point, leave them as they are: so do
those who use SAM in PyTorch, who switch the running statistics off for it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from clients.lanes.batches import LaneBatch
from clients.lanes.draws import LaneDraws
from clients.lanes.losses import LossSums
from clients.lanes.packing import Packing
from clients.lanes.statistics import LaneStatistics
from fedopt.models.activations import activations
from fedopt.task import Task
from fedopt.vectors.layout import Layout, running_statistics

GRADIENT_BYTES, ACTIVATION_BYTES = 2**20, 2**22
"""What the gradients and the layers' outputs of one backward pass over several lanes may take: beyond that it waits for
memory. Measured: 5 lanes for the small CNN (0.96 of the plain loop; one at a time 0.90), one for ResNet-8 (0.98; three
together 0.88)."""


class EachLane:
    """Implements `clients.lanes.backends.LaneGradients`; the parameters of a replica are views of its row of theta."""

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int, draws: LaneDraws | None = None) -> None:
        """`draws` keys the random numbers of a module that draws some."""
        self.packing = Packing(layout, like)
        self._draws = draws
        self.theta = like.new_zeros(lanes, self.packing.width)
        self._gradients = torch.zeros_like(self.theta)
        self._losses = LossSums(lanes, like)
        self._loss = task.loss
        # Frozen parameters and buffers are the same for every lane: all replicas share them.
        shared = {
            id(tensor): tensor
            for tensor in (*task.module.parameters(), *task.module.buffers())
            if not tensor.requires_grad
        }
        self._modules = [copy.deepcopy(task.module, dict(shared)) for _ in range(lanes)]
        self.statistics = LaneStatistics(task.module, like, lanes) if running_statistics(task.module) else None
        if self.statistics is not None:
            for lane, module in enumerate(self._modules):
                self.statistics.bind(module, lane)
        self._parameters = [
            parameter
            for module, row in zip(self._modules, self.theta, strict=True)
            for parameter in self.packing.bind(module, row)
        ]
        self._each = len(layout.names)
        self._gradient_bytes = layout.size * like.element_size()
        self._lanes_together = 0  # known with the first batch
        self._views: dict[int, list[Tensor]] = {}

    def __call__(self, batch: LaneBatch, counts: bool = True) -> Tensor:
        self.accumulate(batch, self._gradients, 0.0, 1.0, counts)
        return self._gradients[: batch.active]

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, counts: bool = True) -> None:
        kept = nullcontext() if counts or self.statistics is None else self.statistics.kept()
        with kept:
            losses = self._accumulated(batch, into, keep, scale)
        if counts:
            self._losses.add(torch.stack(losses).detach())

    def _accumulated(self, batch: LaneBatch, into: Tensor, keep: float, scale: float) -> list[Tensor]:
        """`accumulate`; returns the losses of the active lanes."""
        losses: list[Tensor] = []
        views = self._views_of(into)
        for first, found, gradients in self._groups(batch):
            owned = views[first * self._each : (first + len(found)) * self._each]
            for view, gradient in zip(owned, gradients, strict=True):
                if keep == 0.0:
                    view.copy_(gradient if scale == 1.0 else gradient * scale)
                else:
                    (view if keep == 1.0 else view.mul_(keep)).add_(gradient, alpha=scale)
            losses += found
        return losses

    def losses(self) -> Tensor:
        return self._losses.take()

    def _groups(self, batch: LaneBatch) -> Iterator[tuple[int, list[Tensor], tuple[Tensor, ...]]]:
        """(first lane, losses, gradients by parameter) of the lanes that share one backward pass."""
        self._lanes_together = self._lanes_together or self._lanes_per_pass(batch)
        lanes = list(zip(self._modules, batch.lanes(), strict=False))
        for first in range(0, batch.active, self._lanes_together):
            together = enumerate(lanes[first : first + self._lanes_together], start=first)
            losses = [self._loss_of(lane, batch.step, module, x, y) for lane, (module, (x, y)) in together]
            # No parameter takes part in two losses, so each gets its own gradient.
            owned = self._parameters[first * self._each : (first + len(losses)) * self._each]
            yield first, losses, torch.autograd.grad(losses, owned, allow_unused=True, materialize_grads=True)

    def _loss_of(self, lane: int, step: int, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with nullcontext() if self._draws is None else self._draws.of(lane, step):
            return self._loss(module(x), y)

    def _lanes_per_pass(self, batch: LaneBatch) -> int:
        outputs = batch.width * activations(self._modules[0], batch.first_sample) * self.theta.element_size()
        return max(1, min(GRADIENT_BYTES // self._gradient_bytes, ACTIVATION_BYTES // max(1, outputs)))

    def _views_of(self, buffer: Tensor) -> list[Tensor]:
        """Views of the parameters in a buffer [lanes, Q], lane after lane, cached for the last two buffers."""
        place = buffer.data_ptr()  # cached views keep their memory alive: no other buffer can have this address
        if place not in self._views:
            while len(self._views) > 1:
                del self._views[next(iter(self._views))]
            self._views[place] = [view for row in buffer for view in self.packing.views(row).values()]
        return self._views[place]
