"""Two roads from lanes of parameters to lanes of gradients, with the same numbers.

`each` runs a replica of the module per lane, its parameters being views of that lane: the road for CPUs,
where autograd over stacked lanes costs more than it saves (measured: 0.6 to 1.1 of the plain loop for
dense models), and bit-equal for any number of lanes by construction. `vmap` runs all lanes as one
(torch.func): the road for GPUs, where a launch costs more than the arithmetic.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from clients.batches import LaneBatch
from fedopt.models.activations import activations
from fedopt.parameters import Layout
from fedopt.task import Task

Road = Literal["each", "vmap"]


GRADIENT_BYTES, ACTIVATION_BYTES = 2**20, 2**22
"""What one backward pass over several lanes should keep within, lest it wait for memory: the gradients until they
are laid in place, the outputs of the layers until they are read again. Measured: 5 lanes for the small CNN (0.96
of the plain loop; one by one 0.90), one for ResNet-8 (0.98; three together 0.88)."""


CACHE_LINE = 64
"""Bytes to which torch aligns what it allocates."""


class LaneGradients(Protocol):
    """Gradients of the mean loss of each lane's minibatch, at the present contents of theta."""

    theta: Tensor
    """The lanes, [lanes, P]; whoever steps them writes here."""

    def __call__(self, batch: LaneBatch) -> tuple[Tensor, Tensor]:
        """(gradients [active, P], losses [active]); the gradients may be overwritten by the next call."""
        ...

    def descend(self, batch: LaneBatch, lr: float) -> Tensor:
        """A step of plain gradient descent where nothing else needs the gradient; the losses before it.

        The same numbers as torch.optim.SGD, without laying the gradients side by side first.
        """
        ...


class EachLane:
    """One replica of the module per lane, its parameters views of theta."""

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int) -> None:
        self.theta = aligned_rows(like, lanes, layout.size)
        self._gradients = torch.zeros_like(self.theta)
        self._loss = task.loss
        # What is not trained is the same for every lane and is not copied.
        shared = {
            id(tensor): tensor
            for tensor in (*task.module.parameters(), *task.module.buffers())
            if not tensor.requires_grad
        }
        self._modules = [copy.deepcopy(task.module, dict(shared)) for _ in range(lanes)]
        self._parameters = [
            parameter
            for module, row in zip(self._modules, self.theta, strict=True)
            for parameter in layout.bind(module, row)
        ]
        self._views = [parameter.detach() for parameter in self._parameters]
        self._each = len(layout.names)
        self._gradient_bytes = layout.size * like.element_size()
        self._together = 0  # known with the first batch

    def __call__(self, batch: LaneBatch) -> tuple[Tensor, Tensor]:
        losses: list[Tensor] = []
        for first, found, gradients in self._groups(batch):
            into = self._gradients[first : first + len(found)].view(-1)
            torch.cat([gradient.reshape(-1) for gradient in gradients], out=into)
            losses += found
        return self._gradients[: batch.active], torch.stack(losses).detach()

    def descend(self, batch: LaneBatch, lr: float) -> Tensor:
        losses: list[Tensor] = []
        for first, found, gradients in self._groups(batch):
            owned = self._views[first * self._each : (first + len(found)) * self._each]
            for view, gradient in zip(owned, gradients, strict=True):
                view.add_(gradient, alpha=-lr)
            losses += found
        return torch.stack(losses).detach()

    def _groups(self, batch: LaneBatch) -> Iterator[tuple[int, list[Tensor], tuple[Tensor, ...]]]:
        """(first lane, losses, gradients by parameter) of as many lanes as go through one backward pass."""
        self._together = self._together or self._how_many_together(batch)
        lanes = list(zip(self._modules, batch.lanes(), strict=False))
        for first in range(0, batch.active, self._together):
            losses = [self._loss(module(x), y) for module, (x, y) in lanes[first : first + self._together]]
            # No parameter takes part in two losses, so each gets its own gradient.
            owned = self._parameters[first * self._each : (first + len(losses)) * self._each]
            yield first, losses, torch.autograd.grad(losses, owned, allow_unused=True, materialize_grads=True)

    def _how_many_together(self, batch: LaneBatch) -> int:
        outputs = batch.y.shape[1] * activations(self._modules[0], batch.x[0, :1]) * batch.x.element_size()
        return max(1, min(GRADIENT_BYTES // self._gradient_bytes, ACTIVATION_BYTES // max(1, outputs)))


class VmapLanes:
    """All lanes at once; padded samples weigh nothing."""

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int) -> None:
        self.theta = aligned_rows(like, lanes, layout.size)

        def loss(theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
            outputs = functional_call(task.module, layout.split(theta), (x,))
            return (task.loss(outputs, y, reduction="none") * weights).sum()

        self._gradients = vmap(grad_and_value(loss))

    def __call__(self, batch: LaneBatch) -> tuple[Tensor, Tensor]:
        gradients, losses = self._gradients(
            self.theta[: batch.active], batch.x, batch.y, batch.weights(self.theta.dtype)
        )
        return gradients, losses

    def descend(self, batch: LaneBatch, lr: float) -> Tensor:
        gradients, losses = self(batch)
        self.theta[: batch.active].add_(gradients, alpha=-lr)
        return losses


def aligned_rows(like: Tensor, rows: int, size: int) -> Tensor:
    """Zeros [rows, size], each row beginning where a tensor of its own would.

    Matrix products may round otherwise where their operands are not aligned to a cache line (seen on AMD, float32);
    a lane must get the same bits whichever row it is.
    """
    entries = CACHE_LINE // like.element_size()
    return like.new_zeros(rows, -(-size // entries) * entries)[:, :size]


def lane_gradients(road: Road, task: Task, layout: Layout, like: Tensor, lanes: int) -> LaneGradients:
    """The road of that name with room for `lanes` lanes, of the type and on the device of `like`."""
    return (EachLane if road == "each" else VmapLanes)(task, layout, like, lanes)
