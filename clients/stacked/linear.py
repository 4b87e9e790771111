"""nn.Linear on lanes: one batched matrix product in the forward pass, two in the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torch import Tensor

from clients.stacked.products import plain_product, product, with_numpy
from clients.stacked.rule import GradientTarget, Rule

SMALL = 400
"""torch computes products of fewer multiplications without BLAS: faster than a sum and an addition."""

NARROW = 16
"""With at most so many outputs, and at least as many rows, the transposed product is computed: BLAS then fills its
tiles along the rows (784 x 10 on 64 rows: 20 us instead of 52)."""


class LinearRule(Rule):
    x: Tensor
    """The input, [lanes, rows, features]."""
    y: Tensor
    """The output, [lanes, rows, outputs]."""
    d: Tensor
    """The gradient of the output that `backward` got last."""
    dx: Tensor
    """The gradient of the input, if it is needed."""

    outputs_logits = False
    """Whether only the loss reads the output. The loss accepts any alignment of lanes, and adds the bias itself."""

    def __init__(self, outputs: int, weight: str, bias: str | None) -> None:
        self.outputs, self.weight, self.bias = outputs, weight, bias
        self.names = (weight,) if bias is None else (weight, bias)

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        lanes, *rows, features = x.shape
        # All dimensions between lanes and features are rows of one matrix.
        self.x = x if x.ndim == 3 else x.view(lanes, -1, features)
        self._xt = self.x.transpose(1, 2)
        self._w = self.weights[self.weight]
        self._wt = self._w.transpose(1, 2)
        self._b = None if self.bias is None else self.weights[self.bias][:, None]
        if self.outputs_logits and 1 not in (*x.shape[1:], self.outputs):
            y = self.scratch.dense(
                "y", (lanes, *rows, self.outputs)
            )  # then torch's BLAS multiplies all lanes in one call
        else:
            y = self.scratch("y", lanes, (*rows, self.outputs))
        self.y = y.view(lanes, -1, self.outputs)
        multiply = with_numpy(self.y, self.x, self._wt)
        if multiply is None and x.ndim == 3 and self.outputs <= NARROW <= x.shape[1]:
            transposed = self.scratch("y", lanes, (self.outputs, *rows))
            self.y = y = transposed.transpose(1, 2)
            multiply = functools.partial(product, transposed, self._w, self._xt)
        self._multiply = multiply or functools.partial(product, self.y, self.x, self._wt)
        self._dx: Tensor | None = None
        self._gradient: Tensor | None = None
        if wants_gradient:
            self._dx = self.scratch("dx", lanes, (*rows, features))
            self.dx = self._dx.view(self.x.shape)
        few = self.y.shape[1] * self.outputs < SMALL
        self._ones = x.new_ones(lanes, 1, self.y.shape[1]) if few else None
        return y

    def forward(self) -> None:
        self._multiply()
        if self._b is not None and not self.outputs_logits:
            self.y.add_(self._b)

    @property
    def bias_of_logits(self) -> Tensor | None:
        """The bias that the loss must add, [lanes, 1, outputs]."""
        return self._b if self.outputs_logits else None

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        if gradient is not self._gradient:  # the same buffer every time but the first
            self._gradient, self.d = gradient, gradient.view(self.y.shape)
            self._dt = self.d.transpose(1, 2)
            if self._dx is not None:
                self._multiply_back = plain_product(self.dx, self.d, self._w)
        if self._dx is not None:
            self._multiply_back()
        into.add_product(self.weight, self._dt, self.x)
        if self.bias is not None:
            into.add_rows(self.bias, self.d, self._ones)
        return () if self._dx is None else (self._dx,)
