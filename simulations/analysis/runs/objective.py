"""A loss as a function of the flat vector of trainable parameters, with its derivatives, in float64 unless asked."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fedopt.models.activations import activations
from fedopt.task import Loss
from fedopt.vectors.layout import Layout
from simulations.analysis.runs.pooling import quick

CHUNK = 1024
"""Samples of one backward pass."""
CACHED, FEWEST = 2**22, 32
"""Bytes of all layers' outputs in one forward pass of a twin, and its fewest samples (measured on the small CNN: 125
samples are 10 % faster than 32 and than 1000, in float64 three times as fast as 500)."""


class Objective:
    """The mean loss over samples. The module is copied and stays in eval mode: dropout is off, statistics are fixed."""

    def __init__(self, module: nn.Module, loss: Loss, x: Tensor, y: Tensor, dtype: torch.dtype = torch.float64) -> None:
        self._module = copy.deepcopy(module).eval().to(dtype)
        self._loss, self._x = loss, x.to(dtype) if x.is_floating_point() else x
        self._y = y.to(dtype) if y.is_floating_point() else y
        self._dtype, self._chunk = dtype, CHUNK
        self.layout = Layout.of(self._module)
        self.samples = len(x)
        self.start = self.layout.flatten(self._module)
        """The module's parameters, [P]."""

    def value(self, w: Tensor) -> float:
        with torch.no_grad():
            point = w.to(self._dtype)
            return sum(float(self._sum(point, x, y)) for x, y in self._chunks(self._chunk)) / self.samples

    def twin(self, dtype: torch.dtype) -> Objective:
        """The same loss in this dtype, to be evaluated often and not differentiated: with a module of its own, which
        another thread needs, with quicker layers, and in chunks whose layers' outputs stay in the cache."""
        x = self._x[:FEWEST].to(dtype) if self._x.is_floating_point() else self._x[:FEWEST]
        module = quick(copy.deepcopy(self._module).to(dtype), x)
        other = Objective(module, self._loss, self._x, self._y, dtype)
        outputs = activations(other._module, other._x[:1]) * dtype.itemsize
        other._chunk = min(CHUNK, max(FEWEST, CACHED // max(1, outputs)))
        return other

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
