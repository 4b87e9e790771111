"""nn.GroupNorm and nn.LayerNorm on lanes. They have no running statistics, so only scale and shift are federated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.stacked.convolution import IMAGES
from clients.stacked.rule import GradientTarget, Rule


class NormRule(Rule):
    """y = (x - mean) / deviation * scale + shift, with mean and deviation over some dimensions of a view of x."""

    _dims: tuple[int, ...]
    """The dimensions of the view that are averaged."""
    _samples: tuple[int, ...]
    """The dimensions over which a parameter's gradient is summed."""

    def __init__(self, eps: float, weight: str | None, bias: str | None) -> None:
        self._eps, self._weight, self._bias = eps, weight, bias
        self.names = tuple(name for name in (weight, bias) if name is not None)

    def _prepare(self, x: Tensor, wants_gradient: bool) -> Tensor:
        self._normal = self._in_groups(self.scratch.shaped_like("normal", x))
        y = self.scratch.shaped_like("y", x)
        self._y, self._x = self._in_groups(y), self._in_groups(x)
        self._w = self._spread(self.weights[self._weight]) if self._weight else None
        self._b = self._spread(self.weights[self._bias]) if self._bias else None
        self._product = self._in_groups(self.scratch.shaped_like("product", x))
        self._wants_gradient = wants_gradient
        return y

    def _in_groups(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _spread(self, parameter: Tensor) -> Tensor:
        """A parameter [lanes, *shape] in a shape that broadcasts against the view."""
        raise NotImplementedError

    def forward(self) -> None:
        variance, mean = torch.var_mean(self._x, self._dims, correction=0, keepdim=True)
        self._inverse = variance.add_(self._eps).rsqrt_()
        torch.sub(self._x, mean, out=self._normal)
        self._normal.mul_(self._inverse)
        if self._w is None:
            self._y.copy_(self._normal)
        else:
            torch.mul(self._normal, self._w, out=self._y)
        if self._b is not None:
            self._y.add_(self._b)

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        d = self._in_groups(gradient)
        torch.mul(d, self._normal, out=self._product)
        by_weight = self._product.sum(self._samples) if self._weight else None
        by_bias = d.sum(self._samples) if self._bias else None
        if self._wants_gradient:
            if self._w is not None:
                d.mul_(self._w)
                self._product.mul_(self._w)
            # (d - mean(d) - normal * mean(d * normal)) / deviation
            d.sub_(d.mean(self._dims, keepdim=True))
            d.sub_(self._normal.mul_(self._product.mean(self._dims, keepdim=True)))
            d.mul_(self._inverse)
        for name, found in ((self._weight, by_weight), (self._bias, by_bias)):
            if name is not None and found is not None:
                into.add(name, found.reshape(self.weights[name].shape))
        return (gradient,) if self._wants_gradient else ()


class GroupNormRule(NormRule):
    """Images are stored as [lanes, channels, height, B, width]; the view is [lanes, groups, channels / groups, ...]."""

    _dims, _samples = (2, 3, 5), (3, 4, 5)

    def __init__(self, groups: int, eps: float, weight: str | None, bias: str | None) -> None:
        super().__init__(eps, weight, bias)
        self._groups = groups

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        return self._prepare(x, wants_gradient)

    def _in_groups(self, x: Tensor) -> Tensor:
        images = x.permute(IMAGES)
        return images.view(len(x), self._groups, -1, *images.shape[2:])

    def _spread(self, parameter: Tensor) -> Tensor:
        return parameter.view(len(parameter), self._groups, -1, 1, 1, 1)


class LayerNormRule(NormRule):
    def __init__(self, own: int, eps: float, weight: str | None, bias: str | None) -> None:
        """The last `own` dimensions are normalized."""
        super().__init__(eps, weight, bias)
        self._own = own

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        self._dims = tuple(range(x.ndim - self._own, x.ndim))
        self._samples = tuple(range(1, x.ndim - self._own))
        return self._prepare(x, wants_gradient)

    def _in_groups(self, x: Tensor) -> Tensor:
        return x

    def _spread(self, parameter: Tensor) -> Tensor:
        lanes, *own = parameter.shape
        return parameter.view(lanes, *[1] * len(self._samples), *own)
