"""Elementwise functions on lanes, with the derivatives of torch's own backward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from clients.lanes.storage import whole_rows
from clients.stacked.rule import GradientTarget, Rule

Forward = Callable[[Tensor, Tensor], object]
"""(x, out)"""
Backward = Callable[[Tensor, Tensor, Tensor], object]
"""(gradient, x or y, out)"""

aten = torch.ops.aten


class PointwiseRule(Rule):
    """Works on whole rows, gaps included. The gradient of its input overwrites that of its output."""

    is_relu = False

    def __init__(self, forward: Forward, backward: Backward, *, from_output: bool) -> None:
        """`from_output` says that the derivative is computed from y, not from x."""
        self._forward, self._backward, self._from_output = forward, backward, from_output

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        y = self.scratch.shaped_like("y", x)
        self._x, self._y, self._strides = whole_rows(x), whole_rows(y), y.stride()
        self._known = self._y if self._from_output else self._x
        self._copy = self.scratch.shaped_like("gradient", x) if wants_gradient else y
        self._given: Tensor | None = None
        return y

    def forward(self) -> None:
        self._forward(self._x, self._y)

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        if gradient is not self._given:  # the same buffer every time but the first
            self._given = gradient
            self._same_strides = gradient.stride() == self._strides
            self._found = gradient if self._same_strides else self._copy
            self._rows = whole_rows(self._found)
        if not self._same_strides:
            self._found.copy_(gradient)
        self._backward(self._rows, self._known, self._rows)
        return (self._found,)


def relu() -> Rule:
    rule = PointwiseRule(
        lambda x, out: torch.clamp(x, min=0, out=out),
        lambda d, y, out: aten.threshold_backward.grad_input(d, y, 0, grad_input=out),
        from_output=True,
    )
    rule.is_relu = True
    return rule


def tanh() -> Rule:
    return PointwiseRule(
        lambda x, out: torch.tanh(x, out=out),
        lambda d, y, out: aten.tanh_backward.grad_input(d, y, grad_input=out),
        from_output=True,
    )


def sigmoid() -> Rule:
    return PointwiseRule(
        lambda x, out: torch.sigmoid(x, out=out),
        lambda d, y, out: aten.sigmoid_backward.grad_input(d, y, grad_input=out),
        from_output=True,
    )


def gelu(approximate: str) -> Rule:
    return PointwiseRule(
        lambda x, out: aten.gelu.out(x, approximate=approximate, out=out),
        lambda d, x, out: out.copy_(aten.gelu_backward(d, x, approximate=approximate)),
        from_output=False,
    )


def silu() -> Rule:
    return PointwiseRule(
        lambda x, out: aten.silu.out(x, out=out),
        lambda d, x, out: out.copy_(aten.silu_backward(d, x)),
        from_output=False,
    )


POINTWISE: dict[type[nn.Module], Callable[[nn.Module], Rule]] = {
    nn.ReLU: lambda layer: relu(),
    nn.Tanh: lambda layer: tanh(),
    nn.Sigmoid: lambda layer: sigmoid(),
    nn.GELU: lambda layer: gelu(str(layer.approximate)),
    nn.SiLU: lambda layer: silu(),
}
