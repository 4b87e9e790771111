"""Layers that reshape or copy, and the sum of two branches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clients.stacked.rule import GradientTarget, NotStackable, Rule


class IdentityRule(Rule):
    """Also Dropout with p = 0."""

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        return inputs[0]

    def forward(self) -> None:
        pass

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        return (gradient,)


class WholeNumbersRule(IdentityRule):
    """x.long() in front of an Embedding, whose rule truncates in the same way when it looks up rows."""


class FlattenRule(Rule):
    """[lanes, B, ...] -> [lanes, B, features]. Copies only if the memory has another order."""

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (self._x,) = inputs
        lanes, batch, *shape = self._x.shape
        flat = (batch, math.prod(shape))
        self._is_flat = self._x[0].is_contiguous()
        if self._is_flat:
            return self._x.view(lanes, *flat)
        self._y = self.scratch("y", lanes, flat)
        self._unflat = self._y.view(self._x.shape)
        self._dx = self.scratch.shaped_like("dx", self._x) if wants_gradient else None
        return self._y

    def forward(self) -> None:
        if not self._is_flat:
            self._unflat.copy_(self._x)

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        if self._is_flat:
            return (gradient.view(self._x.shape),)
        if self._dx is None:
            return ()
        self._dx.copy_(gradient.view(self._x.shape))
        return (self._dx,)


class AddRule(Rule):
    """x + z of one shape: the end of a shortcut."""

    takes = 2

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        self._x, self._z = inputs
        if self._x.shape != self._z.shape:
            shapes = f"{tuple(self._x.shape[2:])} and {tuple(self._z.shape[2:])}"
            raise NotStackable(f"a sum of two shapes, {shapes}, has no rule")
        self._y = self.scratch.shaped_like("y", self._x)
        self._other = self.scratch.shaped_like("dx", self._x) if wants_gradient else None
        return self._y

    def forward(self) -> None:
        torch.add(self._x, self._z, out=self._y)

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        if self._other is None:
            return ()
        self._other.copy_(gradient)  # each branch may overwrite its gradient
        return gradient, self._other
