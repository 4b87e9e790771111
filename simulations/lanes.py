"""How many clients train side by side, when the user leaves it to us. Speed and memory only: never results."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clients.gradients import Road

CACHE_BYTES = 8 * 2**20
"""What the lanes of a CPU should keep within: beyond the caches, side by side is slower than one by one."""

CACHE_LANES = 16
"""More lanes than this save nothing further on a CPU: the cost of a call is shared well enough."""

GPU_SHARE = 0.25
"""The part of a GPU's free memory that lanes may fill."""

COPIES = 8
"""Vectors of the model's size that a lane may hold: weights, gradients, two moments, correction, sums, ..."""


def choose_lanes(
    module: nn.Module, sample: Tensor, parameters: int, width: int, cohort: int, road: Road
) -> int:
    """As many lanes as pay, one at least. `width` is the largest minibatch, `sample` one input [1, ...]."""
    if road == "each":
        return max(1, min(cohort, CACHE_LANES, CACHE_BYTES // (2 * parameters * sample.element_size())))
    lane = sample.element_size() * (COPIES * parameters + 3 * width * (sample.numel() + activations(module, sample)))
    free = torch.cuda.mem_get_info(sample.device)[0] if sample.is_cuda else 4 * 2**30
    return max(1, min(cohort, int(GPU_SHARE * free / lane)))


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
