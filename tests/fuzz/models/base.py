"""What the modules of the fuzz are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Shape = tuple[int, ...]
Forward = Callable[[Any, Tensor], Any]
"""From a module with layers by name, and its input, to its output: layers of torch return Any."""


class Net(nn.Module):
    """Layers by name, and a forward pass that is a function of them and the input."""

    def __init__(self, forward: Forward, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self._forward(self, x)
        return output


def vector(forward: Forward, width: int = 6) -> Callable[[Shape, int], nn.Module]:
    """A factory of modules on vectors, with layers fc1 to fc3, relu (in place) and head."""

    def factory(sample_shape: Shape, classes: int) -> nn.Module:
        return Net(
            lambda net, x: forward(net, x.flatten(1)),
            fc1=nn.Linear(math.prod(sample_shape), width),
            fc2=nn.Linear(width, width),
            fc3=nn.Linear(width, width),
            relu=nn.ReLU(inplace=True),
            head=nn.Linear(width, classes),
        )

    return factory


def small_layers(sample_shape: Shape, classes: int) -> nn.Sequential:
    """Flatten, Linear, Tanh, Linear: every layer has a rule."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sample_shape), 5), nn.Tanh(), nn.Linear(5, classes))
