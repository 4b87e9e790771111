"""The size of a module's activations: what a forward pass keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fedopt.seeding import Purpose, isolated


@torch.no_grad()
def activations(module: nn.Module, sample: Tensor) -> int:
    """The number of activations of all layers for one sample [1, ...]."""
    outputs: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.extend(_sizes(output)))
        for layer in module.modules()
        if not any(layer.children())
    ]
    # In training BatchNorm would write its statistics, and might not take one sample.
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    training = [layer.training for layer in norms]
    try:
        for layer in norms:
            layer.training = False
        with isolated(0, Purpose.DRAWS):
            module(sample)
    finally:
        for layer, before in zip(norms, training, strict=True):
            layer.training = before
        for hook in hooks:
            hook.remove()
    return sum(outputs)


def _sizes(output: object) -> Iterator[int]:
    """The size of all tensors in a layer's output, which may be a tuple or a dict of tensors."""
    if isinstance(output, Tensor):
        yield output.numel()
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _sizes(part)
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _sizes(part)
