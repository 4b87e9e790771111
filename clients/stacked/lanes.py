"""The stacked road: gradients of all lanes at once by the rules of the layers, added straight where they belong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.batches import LaneBatch
from clients.stacked.convolution import Conv2dRule
from clients.stacked.layers import NotStackable
from clients.stacked.loss import CrossEntropy
from clients.stacked.packing import Packing
from clients.stacked.recognise import SAMPLES, recognise
from clients.stacked.rule import Into
from clients.stacked.storage import Scratch
from fedopt.parameters import Layout
from fedopt.task import Task

HEAVY = 2e6
"""Multiplications in convolutions, a sample, from which on arithmetic is all that counts on a CPU, and the blocked
kernels that autograd calls do it faster (measured, batch 10: 0.3 million 1.6 times faster here, 9 million half as
fast)."""


def why_not_stacked(task: Task, sample: Tensor) -> str | None:
    """What keeps the task from this road, as a clause; None if nothing does. `sample` is one input [1, ...]."""
    try:
        _one_lane(task, sample)
    except NotStackable as error:
        return str(error)
    return None


def why_not_faster(task: Task, sample: Tensor) -> str | None:
    """Why a task that could take this road had better not, as a clause; None if it had."""
    heavy = _one_lane(task, sample).convolution_products
    if sample.device.type == "cpu" and heavy > HEAVY:
        return f"its convolutions are {heavy / 1e6:.1f} million products a sample, which autograd's kernels do faster"
    return None


def _one_lane(task: Task, sample: Tensor) -> StackedLanes:
    like = next(p for p in task.module.parameters() if p.requires_grad).detach()
    lanes = StackedLanes(task, Layout.of(task.module), like, 1)
    lanes.try_out(sample)
    return lanes


class StackedLanes:
    """Implements `clients.gradients.LaneGradients`."""

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int) -> None:
        """NotStackable if the task is not made of what this road knows."""
        if task.loss is not F.cross_entropy:
            raise NotStackable("its loss is not cross_entropy")
        if any(parameter.dtype != like.dtype for parameter in task.module.parameters()):
            raise NotStackable("its parameters are of several types")
        self._steps = recognise(task.module, layout)
        for step in self._steps:
            step.rule.scratch = Scratch(like)
        self._loss = CrossEntropy(Scratch(like))
        self._like, self._scratch = like, Scratch(like)
        self.packing = Packing(layout, like)
        self.theta = like.new_zeros(lanes, self.packing.width)
        self._gradients = torch.zeros_like(self.theta)
        self._prepared: tuple[int, ...] = ()
        self._targets: dict[int, Mapping[str, Tensor]] = {}
        self._gathered: LaneBatch | None = None

    def __call__(self, batch: LaneBatch) -> tuple[Tensor, Tensor]:
        losses = self.accumulate(batch, self._gradients, 0.0, 1.0)
        return self._gradients[: batch.active], losses

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float) -> Tensor:
        if batch.shape != self._prepared:
            self._prepare(batch.shape)
        if batch is not self._gathered:
            self._gather(batch)
        for step in self._steps:
            step.rule.forward()
        losses, gradient = self._loss(batch.y, batch.weights)
        self._backward(gradient, Into(self._views(into), keep, scale))
        return losses

    def try_out(self, sample: Tensor) -> None:
        """NotStackable if the rules do not fit samples of this kind."""
        try:
            self._prepare((1, *sample.shape))
        except (RuntimeError, ValueError, IndexError) as error:
            raise NotStackable(f"samples of shape {tuple(sample.shape[1:])} do not fit its rules") from error

    @property
    def convolution_products(self) -> int:
        """Multiplications for one sample, in convolutions."""
        return sum(step.rule.products for step in self._steps if isinstance(step.rule, Conv2dRule))

    def _gather(self, batch: LaneBatch) -> None:
        if self._flat_x is None:
            self._x.copy_(batch.x)
        else:
            batch.gather(self._flat_x)
        self._gathered = batch

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Lays out all buffers for so many lanes and so wide a batch."""
        self._prepared, self._gathered = shape, None
        self._targets.clear()
        lanes = shape[0]
        weights = self.packing.views(self.theta[:lanes])
        self._x = self._scratch("x", lanes, shape[1:])
        # Lanes without gaps between them are gathered in place.
        self._flat_x = self._x.view(-1, *shape[2:]) if self._x.is_contiguous() else None
        values: list[Tensor] = []
        learns: list[bool] = []  # whether a value depends on parameters
        for step in self._steps:
            wants = any(source != SAMPLES and learns[source] for source in step.inputs)
            step.rule.weights = {name: weights[name] for name in step.rule.names}
            inputs = [self._x if source == SAMPLES else values[source] for source in step.inputs]
            values.append(step.rule.prepare(inputs, wants))
            learns.append(wants or bool(step.rule.names))
        self._learns = learns
        self._loss.prepare(values[-1])

    def _backward(self, gradient: Tensor, into: Into) -> None:
        gradients: dict[int, Tensor] = {len(self._steps) - 1: gradient}
        for number in range(len(self._steps) - 1, -1, -1):
            step = self._steps[number]
            if not self._learns[number]:
                continue
            found = step.rule.backward(gradients.pop(number), into)
            for source, part in zip(step.inputs, found, strict=False):
                if source == SAMPLES or not self._learns[source]:
                    continue
                if source in gradients:
                    gradients[source].add_(part)
                else:
                    gradients[source] = part

    def _views(self, buffer: Tensor) -> Mapping[str, Tensor]:
        """The active part of a buffer [lanes, Q] by parameter."""
        views = self._targets.get(buffer.data_ptr())  # views keep their memory: no other buffer can lie there
        if views is None:
            views = self._targets[buffer.data_ptr()] = self.packing.views(buffer[: self._prepared[0]])
        return views
