"""Named parameters and flat vectors: a client's trainable parameters are one vector [P], lanes are [lanes, P].

With one flat vector, a step, a norm, a correction or a sum is one operation for any model, the first lanes are one
contiguous block, and an update is one object on the wire.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Vectors = Mapping[str, Tensor]
"""Named flat vectors, each [P] (one client, or the server) or [lanes, P] (clients side by side)."""


def finest(like: Tensor) -> torch.dtype:
    """The dtype for sums on the device of `like`: float64 if the device has it."""
    return torch.float32 if like.device.type == "mps" else torch.float64


@dataclass(frozen=True)
class Layout:
    """Where each trainable parameter lies in the flat vector, in the module's own order."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        trainable = [(name, p.shape) for name, p in module.named_parameters() if p.requires_grad]
        return cls(tuple(name for name, _ in trainable), tuple(shape for _, shape in trainable))

    @property
    def sizes(self) -> list[int]:
        return [shape.numel() for shape in self.shapes]

    @property
    def size(self) -> int:
        """P, the length of the flat vector."""
        return sum(self.sizes)

    def flatten(self, module: nn.Module) -> Tensor:
        """A copy of the module's trainable parameters as one vector [P]."""
        parameters = dict(module.named_parameters())
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.names])

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of `flat` [..., P] by name, each [..., *shape]."""
        parts = torch.split(flat, self.sizes, dim=-1)
        return {
            name: part.view((*flat.shape[:-1], *shape))
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }


class RowLayout(Protocol):
    """Where each parameter lies in a row [Q], in which parameters start at aligned places and gaps hold zeros."""

    layout: Layout
    """Of the flat vector [P]."""
    width: int
    """Q, the length of a row."""

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
    """The module's whole state_dict with its trainable parameters taken from `flat`: plain CPU copies."""
    views, parameters = layout.split(flat.detach()), dict(module.named_parameters())
    trained = {id(parameters[name]): view for name, view in views.items()}
    state = dict(module.state_dict())
    for name, parameter in module.named_parameters(remove_duplicate=False):  # tied weights go by several names
        state[name] = trained.get(id(parameter), parameter)
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
