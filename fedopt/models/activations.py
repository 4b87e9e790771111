"""How much a module puts out between its input and its loss: what a forward pass keeps for the backward one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fedopt.seeding import Purpose, isolated


@torch.no_grad()
def activations(module: nn.Module, sample: Tensor) -> int:
    """Numbers that the layers of the module put out for one sample [1, ...]."""
    outputs: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.extend(_sizes(output)))
        for layer in module.modules()
        if not any(layer.children())
    ]
    try:
        with isolated(0, Purpose.DRAWS):
            module(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(outputs)


def _sizes(output: object) -> Iterator[int]:
    """Of every tensor in what a layer puts out: a recurrent layer gives a tuple of them, others a table."""
    if isinstance(output, Tensor):
        yield output.numel()
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _sizes(part)
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _sizes(part)
