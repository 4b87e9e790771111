"""A loss as a function of the flat vector of trainable parameters, with its derivatives, in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fedopt.task import Loss
from fedopt.vectors.layout import Layout

CHUNK = 1024
"""Samples of one backward pass."""


class Objective:
    """The mean loss over samples. The module is copied and stays in eval mode: dropout is off, statistics are fixed."""

    def __init__(self, module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> None:
        self._module = copy.deepcopy(module).eval().to(torch.float64)
        self._loss, self._x = loss, x.double() if x.is_floating_point() else x
        self._y = y.double() if y.is_floating_point() else y
        self.layout = Layout.of(self._module)
        self.samples = len(x)
        self.start = self.layout.flatten(self._module)
        """The module's parameters, [P]."""

    def value(self, w: Tensor) -> float:
        with torch.no_grad():
            return sum(float(self._sum(w, x, y)) for x, y in self._chunks(CHUNK)) / self.samples

    def gradient(self, w: Tensor) -> Tensor:
        """[P]."""
        point = w.detach().requires_grad_()
        parts = [torch.autograd.grad(self._sum(point, x, y), point)[0] for x, y in self._chunks(CHUNK)]
        return torch.stack(parts).sum(0) / self.samples

    def product(self, w: Tensor, v: Tensor) -> Tensor:
        """The Hessian at w times v, [P]."""
        found = torch.zeros_like(w)
        for x, y in self._chunks(CHUNK):
            point = w.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self._sum(point, x, y), point, create_graph=True)
            if slope.requires_grad:  # not where the loss is linear in all parameters
                found += torch.autograd.grad(slope @ v, point)[0]
        return found / self.samples

    def of_batches(self, w: Tensor, size: int) -> Iterator[Tensor]:
        """The gradients [P] of the mean loss over disjoint batches of this size; samples that are left over take no
        part."""
        point = w.detach().requires_grad_()
        for x, y in self._chunks(size):
            if len(x) == size:
                yield torch.autograd.grad(self._sum(point, x, y), point)[0] / size

    def _sum(self, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        outputs = torch.func.functional_call(self._module, self.layout.split(w), (x,))
        return self._loss(outputs, y, reduction="none").sum()

    def _chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(torch.split(self._x, size), torch.split(self._y, size), strict=True)
