"""Norms of vectors for the measures."""

from __future__ import annotations

import torch
from torch import Tensor


def square_norm(vector: Tensor) -> float:
    """|v|^2 in float64, of a copy: the last bit of a dot product may depend on the alignment of its operands."""
    wide = vector.detach().to("cpu" if vector.device.type == "mps" else vector.device, torch.float64, copy=True)
    return torch.dot(wide, wide).item()
