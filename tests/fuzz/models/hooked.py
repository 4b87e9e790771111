"""Modules whose hooks, frozen parameters or own functions change what their layers say."""

from __future__ import annotations

import math
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.fuzz.models.base import Shape, small_layers


def frozen_layer(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module[1].requires_grad_(False)
    return module


def frozen_bias(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module[1].get_parameter("bias").requires_grad_(False)
    return module


def root_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module.register_forward_hook(lambda _module, _inputs, output: 2 * output.flip(1))
    return module


def root_pre_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 0.5,))
    return module


def layer_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module[1].register_forward_hook(lambda _module, _inputs, output: output + 1)
    return module


def inner_hook(sample_shape: Shape, classes: int) -> nn.Module:
    """A hook on a module that is a container."""
    inner = nn.Sequential(nn.Linear(math.prod(sample_shape), 5), nn.Tanh())
    inner.register_forward_hook(lambda _module, _inputs, output: output * 3)
    return nn.Sequential(nn.Flatten(), inner, nn.Linear(5, classes))


def _halve(_module: nn.Module, inner: Any, _outer: Any) -> tuple[Tensor, ...]:
    return tuple(0.5 * gradient for gradient in inner)


def _double(_module: nn.Module, outer: Any) -> tuple[Tensor, ...]:
    return tuple(2 * gradient for gradient in outer)


def backward_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module[2].register_full_backward_hook(_halve)
    return module


def backward_pre_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module[3].register_full_backward_pre_hook(_double)
    return module


def root_backward_pre_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module.register_full_backward_pre_hook(_double)
    return module


def _quarter(gradient: Tensor) -> Tensor:
    return 0.25 * gradient


def parameter_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module[1].get_parameter("weight").register_hook(_quarter)  # type: ignore[no-untyped-call]
    return module


def _own_forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return 2 * F.linear(x, layer.weight, layer.bias)


def patched_method(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module[1].forward = types.MethodType(_own_forward, module[1])
    return module


def patched_closure(sample_shape: Shape, classes: int) -> nn.Module:
    """A function that holds the layer itself: a copy of the module calls it with the original's weights."""
    module = small_layers(sample_shape, classes)
    layer = module[1]
    assert isinstance(layer, nn.Linear)
    layer.forward = lambda x: _own_forward(layer, x)  # type: ignore[method-assign, assignment]
    return module


class Scaled(nn.Linear):
    """A subclass of a layer that has a rule."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def subclassed(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    module[1] = Scaled(math.prod(sample_shape), 5)
    return module


class Constants(nn.Module):
    """Parameters and buffers of the root itself, outside any layer."""

    scale: Tensor

    def __init__(self, sample_shape: Shape, classes: int) -> None:
        super().__init__()
        self.inner = small_layers(sample_shape, classes)
        self.offset = nn.Parameter(torch.zeros(classes))
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("scale", torch.linspace(0.5, 1.5, classes))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x) * self.scale * self.temperature
        return scores + self.offset


def constants(sample_shape: Shape, classes: int) -> nn.Module:
    return Constants(sample_shape, classes)


def weight_norm(sample_shape: Shape, classes: int) -> nn.Module:
    module = small_layers(sample_shape, classes)
    parametrizations.weight_norm(module[1])
    return module
