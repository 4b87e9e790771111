"""nn.Linear on lanes: one batched product each way."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from clients.stacked.rule import Into, Rule
from clients.stacked.storage import product

SMALL = 400
"""Products of fewer multiplications than this torch does itself, without BLAS: cheaper than a sum and an addition."""

NARROW = 16
"""Outputs up to which a product is turned round where it has at least as many rows: BLAS fills its tiles along the
rows then (784 x 10 on 64 rows: 20 against 52 us)."""


class LinearRule(Rule):
    _dx: Tensor | None
    _gradient: Tensor | None

    def __init__(self, outputs: int, weight: str, bias: str | None) -> None:
        self._weight, self._bias, self._outputs = weight, bias, outputs
        self.names = (weight,) if bias is None else (weight, bias)

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        lanes, *rows, features = x.shape
        # Any dimensions between lanes and features are rows of one matrix.
        self._x = x if x.ndim == 3 else x.view(lanes, -1, features)
        self._w = self.weights[self._weight]
        self._wt = self._w.transpose(1, 2)
        self._b = None if self._bias is None else self.weights[self._bias][:, None]
        self._turned = x.ndim == 3 and self._outputs <= NARROW <= x.shape[1]
        if self._turned:
            self._yt = self.scratch("y", lanes, (self._outputs, *rows))
            self._xt = x.transpose(1, 2)
            y = self._yt.transpose(1, 2)
        else:
            y = self.scratch("y", lanes, (*rows, self._outputs))
        self._y = y.view(lanes, -1, self._outputs)
        self._dx, self._gradient = None, None
        if wants_gradient:
            self._dx = self.scratch("dx", lanes, (*rows, features))
            self._dx_rows = self._dx.view(self._x.shape)
        few = self._y.shape[1] * self._outputs < SMALL
        self._ones = x.new_ones(lanes, 1, self._y.shape[1]) if few else None
        return y

    def forward(self) -> None:
        if self._b is not None:
            self._y.copy_(self._b)
        keep = 0.0 if self._b is None else 1.0
        if self._turned:
            product(self._yt, self._w, self._xt, keep)
        else:
            product(self._y, self._x, self._wt, keep)

    def backward(self, gradient: Tensor, into: Into) -> Sequence[Tensor]:
        if gradient is not self._gradient:  # the same buffer every time but the first
            self._gradient, self._d = gradient, gradient.view(self._y.shape)
            self._dt = self._d.transpose(1, 2)
        if self._dx is not None:
            product(self._dx_rows, self._d, self._w)
        into.add_product(self._weight, self._dt, self._x)
        if self._bias is not None:
            if self._ones is not None:
                into.add_small_product(self._bias, self._ones, self._d)
            else:
                into.add(self._bias, self._d.sum(1))
        return () if self._dx is None else (self._dx,)
