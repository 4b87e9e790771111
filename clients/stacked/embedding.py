"""nn.Embedding on lanes: each lane has its own table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.stacked.rule import GradientTarget, Rule


class EmbeddingRule(Rule):
    """Integers [lanes, B, ...] in, [lanes, B, ..., features] out; the input has no gradient."""

    def __init__(self, features: int, weight: str) -> None:
        self._weight, self._features = weight, features
        self.names = (weight,)

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (self._x,) = inputs
        lanes, *shape = self._x.shape
        self._table = self.weights[self._weight]
        self._lane = torch.arange(lanes, device=self._x.device).view(lanes, *[1] * len(shape))
        self._y = self.scratch("y", lanes, (*shape, self._features))
        self._gradient = self.scratch("gradient", lanes, self._table.shape[1:])
        return self._y

    def forward(self) -> None:
        self._y.copy_(self._table[self._lane, self._x.long()])

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        self._gradient.zero_()
        self._gradient.index_put_((self._lane, self._x.long()), gradient, accumulate=True)
        into.add(self._weight, self._gradient)
        return ()
