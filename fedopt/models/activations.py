"""How much a module puts out between its input and its loss: what a forward pass keeps for the backward one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def activations(module: nn.Module, sample: Tensor) -> int:
    """Numbers that the layers of the module put out for one sample [1, ...]."""
    outputs: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output.numel()))
        for layer in module.modules()
        if not any(layer.children())
    ]
    try:
        module(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(outputs)
