"""The registry of rules: the layers and functions of torch that have one, and the settings that it supports."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from clients.stacked.convolution import Conv2dRule
from clients.stacked.embedding import EmbeddingRule
from clients.stacked.linear import LinearRule
from clients.stacked.normalization import GroupNormRule, LayerNormRule
from clients.stacked.pointwise import POINTWISE
from clients.stacked.pooling import AveragePoolRule, MaxPoolRule
from clients.stacked.rule import NotStackable, Rule
from clients.stacked.shapes import AddRule, FlattenRule, IdentityRule, WholeNumbersRule


def rule_of_layer(layer: nn.Module, path: str) -> Rule:
    """The rule of a layer whose name in its module is `path`; NotStackable if it has none."""
    kind = type(layer)
    refuse_what_is_not_traced(layer, path)
    if kind in POINTWISE:
        return POINTWISE[kind](layer)
    if kind not in LAYERS:
        raise NotStackable(f"{kind.__name__} at {path} has no rule")
    names = {name: f"{path}.{name}" if path else name for name, _ in layer.named_parameters(recurse=False)}
    return LAYERS[kind](layer, names)


def refuse_what_is_not_traced(module: nn.Module, path: str) -> None:
    """NotStackable if calling the module runs more than the forward method of its class."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    if any(hooks):
        raise NotStackable(f"{type(module).__name__} at {path or 'the root'} has hooks")
    if "forward" in vars(module):
        raise NotStackable(f"{type(module).__name__} at {path or 'the root'} has a forward method of its own")


def rule_of_function(function: Callable[..., Any] | str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Rule:
    """The rule of a function or method called with these arguments after the tensors; NotStackable if none."""
    if function not in FUNCTIONS:
        raise NotStackable(f"{getattr(function, '__name__', function)} has no rule")
    try:
        layer = FUNCTIONS[function](*arguments, **named)
    except TypeError as error:
        raise NotStackable(f"{getattr(function, '__name__', function)} is called in a way that has no rule") from error
    return layer if isinstance(layer, Rule) else rule_of_layer(layer, "a function")


def _linear(layer: nn.Linear, names: Mapping[str, str]) -> Rule:
    return LinearRule(layer.out_features, names["weight"], names.get("bias"))


def _conv2d(layer: nn.Conv2d, names: Mapping[str, str]) -> Rule:
    _require(layer.groups == 1 and _pair(layer.dilation) == (1, 1), "a convolution in groups or with dilation")
    _require(layer.padding_mode == "zeros" and not isinstance(layer.padding, str), "padding other than zeros by number")
    return Conv2dRule(layer, names["weight"], names.get("bias"))


def _max_pool(layer: nn.MaxPool2d, names: Mapping[str, str]) -> Rule:
    _require(not layer.ceil_mode and not layer.return_indices and _pair(layer.dilation) == (1, 1), "such a MaxPool2d")
    return MaxPoolRule(_tiles(layer))


def _average_pool(layer: nn.AvgPool2d, names: Mapping[str, str]) -> Rule:
    _require(not layer.ceil_mode and layer.divisor_override is None, "such an AvgPool2d")
    return AveragePoolRule(_tiles(layer))


def _adaptive_pool(layer: nn.AdaptiveAvgPool2d, names: Mapping[str, str]) -> Rule:
    _require(layer.output_size in (1, (1, 1)), "AdaptiveAvgPool2d to more than one number")
    return AveragePoolRule(None)


def _flatten(layer: nn.Flatten, names: Mapping[str, str]) -> Rule:
    _require((layer.start_dim, layer.end_dim) == (1, -1), "Flatten of some dimensions only")
    return FlattenRule()


def _embedding(layer: nn.Embedding, names: Mapping[str, str]) -> Rule:
    plain = layer.padding_idx is None and layer.max_norm is None
    _require(plain and not layer.scale_grad_by_freq and not layer.sparse, "such an Embedding")
    return EmbeddingRule(layer.embedding_dim, names["weight"])


def _dropout(layer: nn.Dropout, names: Mapping[str, str]) -> Rule:
    _require(layer.p == 0, "dropout")
    return IdentityRule()


LAYERS: dict[type[nn.Module], Callable[[Any, Mapping[str, str]], Rule]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.Flatten: _flatten,
    nn.Embedding: _embedding,
    nn.GroupNorm: lambda layer, names: GroupNormRule(
        layer.num_groups, layer.eps, names.get("weight"), names.get("bias")
    ),
    nn.LayerNorm: lambda layer, names: LayerNormRule(
        len(layer.normalized_shape), layer.eps, names.get("weight"), names.get("bias")
    ),
    nn.Identity: lambda layer, names: IdentityRule(),
    nn.Dropout: _dropout,
    nn.Dropout2d: _dropout,
}


def _relu(inplace: bool = False) -> nn.Module:
    return nn.ReLU()


def _flat(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _dropped(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    return nn.Dropout(p if training else 0.0)


FUNCTIONS: dict[Callable[..., Any] | str, Callable[..., nn.Module | Rule]] = {
    operator.add: AddRule,
    torch.add: AddRule,
    "add": AddRule,
    F.relu: _relu,
    torch.relu: _relu,
    "relu": _relu,
    torch.tanh: nn.Tanh,
    "tanh": nn.Tanh,
    torch.sigmoid: nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
    F.gelu: nn.GELU,
    F.silu: lambda inplace=False: nn.SiLU(),
    F.max_pool2d: nn.MaxPool2d,
    torch.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.dropout: _dropped,
    torch.flatten: _flat,
    "flatten": _flat,
    "long": WholeNumbersRule,
    "int": WholeNumbersRule,
}


def _tiles(layer: nn.MaxPool2d | nn.AvgPool2d) -> tuple[int, int]:
    window = _pair(layer.kernel_size)
    tiles = _pair(layer.stride) == window and _pair(layer.padding) == (0, 0)
    _require(tiles, f"{type(layer).__name__} whose windows overlap or are padded")
    return window


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _require(held: bool, what: str) -> None:
    if not held:
        raise NotStackable(f"{what} has no rule")
