"""Named parameters and flat vectors: a client's trainable parameters are one vector [P], lanes are [lanes, P].

With one flat vector, a step, a norm, a correction or a sum is one operation for any model, the first lanes are one
contiguous block, and an update is one object on the wire.

Running statistics of BatchNorm, where a model has some, stand behind the trained parameters: it is then [P + S].
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Vectors = Mapping[str, Tensor]
"""Named flat vectors, each [P] (one client, or the server) or [lanes, P] (clients side by side)."""


MEAN, VARIANCE = "running_mean", "running_var"
"""What BatchNorm layers call their running statistics."""


def finest(like: Tensor) -> torch.dtype:
    """The dtype for sums on the device of `like`: float64 if the device has it."""
    return torch.float32 if like.device.type == "mps" else torch.float64


@dataclass(frozen=True)
class Layout:
    """Where each trainable parameter lies in the flat vector, in the module's own order."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    statistics: int = 0
    """How many of the last names are running statistics, which are no parameters."""

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """Of the trainable parameters."""
        trainable = [(name, p.shape) for name, p in module.named_parameters() if p.requires_grad]
        return cls(tuple(name for name, _ in trainable), tuple(shape for _, shape in trainable))

    @classmethod
    def with_statistics(cls, module: nn.Module) -> Layout:
        """Of the trainable parameters, and of the running statistics behind them."""
        trained, found = cls.of(module), running_statistics(module)
        shapes = tuple(tensor.shape for tensor in found.values())
        return cls((*trained.names, *found), (*trained.shapes, *shapes), len(found))

    @property
    def trained(self) -> Layout:
        """Without the statistics."""
        kept = len(self.names) - self.statistics
        return Layout(self.names[:kept], self.shapes[:kept])

    @property
    def of_statistics(self) -> Layout:
        """Of the statistics alone."""
        first = len(self.names) - self.statistics
        return Layout(self.names[first:], self.shapes[first:], self.statistics)

    @property
    def sizes(self) -> list[int]:
        return [shape.numel() for shape in self.shapes]

    @property
    def size(self) -> int:
        """P, the length of the flat vector."""
        return sum(self.sizes)

    def flatten(self, module: nn.Module) -> Tensor:
        """A copy of the module's tensors of these names as one vector [P]."""
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        return torch.cat([tensors[name].detach().reshape(-1) for name in self.names])

    @torch.no_grad()
    def write(self, module: nn.Module, flat: Tensor) -> None:
        """Copies a vector [P] into the module's tensors of these names."""
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, view in self.split(flat).items():
            tensors[name].copy_(view)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of `flat` [..., P] by name, each [..., *shape]."""
        parts = torch.split(flat, self.sizes, dim=-1)
        return {
            name: part.view((*flat.shape[:-1], *shape))
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }


def running_statistics(module: nn.Module) -> dict[str, Tensor]:
    """The running means and variances of the module's BatchNorm layers, by name."""
    return {
        f"{path}.{name}" if path else name: statistic
        for path, layer in module.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for name in (MEAN, VARIANCE)
        if (statistic := getattr(layer, name)) is not None
    }


class RowLayout(Protocol):
    """Where each parameter lies in a row [Q], in which parameters start at aligned places and gaps hold zeros."""

    layout: Layout
    """Of the flat vector [P]."""
    width: int
    """Q, the length of a row."""
    starts: Sequence[int]
    """Where each parameter begins in a row, in the order of the layout."""

    def pack(self, flat: Tensor) -> Tensor:
        """Rows [..., Q] of flat vectors [..., P]."""
        ...

    def unpack(self, rows: Tensor) -> Tensor:
        """The flat vectors [..., P] in rows [..., Q]: the real entries, in the order of the parameters."""
        ...

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """The parameters in rows [..., Q] by name, each [..., *shape]; writing to them writes to the rows."""
        ...


def state_of(module: nn.Module, layout: Layout, flat: Tensor) -> dict[str, Tensor]:
    """The module's whole state_dict with the layout's tensors taken from `flat`: plain CPU copies."""
    views = layout.split(flat.detach())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    federated = {id(tensors[name]): view for name, view in views.items()}
    state = dict(module.state_dict())
    for name, parameter in module.named_parameters(remove_duplicate=False):  # tied weights go by several names
        state[name] = federated.get(id(parameter), parameter)
    for name, buffer in module.named_buffers(remove_duplicate=False):
        if id(buffer) in federated:
            state[name] = federated[id(buffer)]
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}


def state_of_module(module: nn.Module) -> dict[str, Tensor]:
    """The module's state_dict as plain CPU copies."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in module.state_dict().items()}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def largest_magnitude(vector: Tensor) -> float:
    """The largest magnitude; NaN or inf if any entry is."""
    low, high = torch.aminmax(vector)
    return max(abs(low.item()), abs(high.item())) if not low.isnan() else math.nan
