"""Models with BatchNorm (Ioffe, Szegedy 2015, arXiv:1502.03167): which of them can be federated, by `model.batchnorm`.

refuse    none
average   clients train with batch statistics, their running statistics are averaged like their updates
local     FedBN (Li, Jiang, Zhang, Kamp, Dou, ICLR 2021, arXiv:2102.07623): BatchNorm stays with each client
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from fedopt.data.step_counts import StepCounts
from fedopt.errors import InvalidExperiment
from fedopt.models.behavior import CANNOT_RUN
from fedopt.vectors.layout import running_statistics

BatchNormPolicy = Literal["refuse", "local", "average"]

OTHERWISE = ', or say with model.batchnorm = "average" or "local" what becomes of them'
"""Ends the sentence that refuses BatchNorm."""


def why_not_carried(layer: nn.Module) -> str | None:
    """Why a layer with batch statistics cannot be federated under any policy, as a clause; None if it can."""
    kind = type(layer).__name__
    if isinstance(layer, nn.SyncBatchNorm):
        return f"{kind} computes statistics over several processes; use nn.BatchNorm1d, 2d or 3d"
    if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return f"{kind} keeps running statistics without being a BatchNorm; set track_running_stats to False"
    if not layer.track_running_stats:
        return f"{kind} has no running statistics to evaluate with; set track_running_stats to True"
    if layer.momentum is None:
        return f"{kind} averages over all batches since the first, which no client sees; give it a momentum"
    return None


def buffers_of(module: nn.Module) -> set[str]:
    """Names of the buffers of BatchNorm layers."""
    return {
        f"{path}.{name}" if path else name
        for path, layer in module.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for name, _ in layer.named_buffers(recurse=False)
    }


@contextmanager
def keeping_statistics(module: nn.Module) -> Iterator[None]:
    """For trials in training mode: afterwards the buffers of BatchNorm layers are what they were."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    before = [{name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)} for layer in layers]
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, buffers in zip(layers, before, strict=True):
                for name, buffer in buffers.items():
                    getattr(layer, name).copy_(buffer)


def fails_alone(module: nn.Module, sample: Tensor) -> bool:
    """Whether the module cannot be trained on a batch of one sample [1, ...], as BatchNorm1d behind a linear layer."""
    if not running_statistics(module):
        return False
    with torch.no_grad():
        try:
            copy.deepcopy(module).train()(sample)
        except CANNOT_RUN:
            return True
    return False


def alone_refusal(samples: int, batch_size: int | str, other: int | None = None) -> InvalidExperiment:
    """For a client whose minibatches are, or end in, one sample; `other` is a batch size with which none is."""
    told = f"a client with {samples} samples has a minibatch of one (local.batch_size = {batch_size})"
    return InvalidExperiment(
        f"model.batchnorm: {told}, which this model's BatchNorm cannot normalize in training; choose "
        f"{'another local.batch_size' if other is None else f'local.batch_size = {other}'}, or GroupNorm "
        '(model.norm = "group" where the model is made by a function)'
    )


def check_batches(module: nn.Module, sample: Tensor, sizes: Sequence[int], counts: StepCounts) -> None:
    """InvalidExperiment if a client of one of these sizes would train on a batch of one sample that the module cannot
    take."""
    if not fails_alone(module, sample):
        return
    batch_size = counts.local.batch_size
    for samples in sizes:
        width = samples if batch_size == "full" else min(batch_size, samples)
        if width == 1 or (samples % width == 1 and counts.most(samples) >= -(-samples // width)):
            raise alone_refusal(samples, batch_size, _fitting(sizes, batch_size))


def _fitting(sizes: Sequence[int], batch_size: int | str) -> int | None:
    """The nearest batch size that leaves no client of these sizes a batch of one sample."""
    if isinstance(batch_size, str):
        return None
    near = sorted(range(2, 4 * batch_size + 1), key=lambda other: abs(other - batch_size))
    return next((other for other in near if all(samples > 1 and samples % other != 1 for samples in sizes)), None)
