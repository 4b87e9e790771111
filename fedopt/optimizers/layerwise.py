"""A learning rate of each parameter tensor's own, from the norms of weights and gradient, for larc and lars."""

from __future__ import annotations

import torch
from torch import Tensor

from fedopt.vectors.layout import RowLayout


def trust_ratios(
    theta: Tensor, gradient: Tensor, layout: RowLayout, trust: float, weight_decay: float, skip_vectors: bool
) -> dict[str, Tensor]:
    """trust |w| / (|g| + weight_decay |w|) of each parameter tensor by name, [active, 1, ...]: as many dimensions as
    the tensor has, in each lane.

    A tensor whose weights or gradients are all zero, and a vector or scalar under `skip_vectors`, is left out.
    """
    weights, gradients = layout.views(theta), layout.views(gradient)
    found = {}
    for name, w in weights.items():
        if skip_vectors and w.ndim < 3:
            continue
        of_w, of_g = (torch.linalg.vector_norm(rows.reshape(len(rows), -1), dim=1) for rows in (w, gradients[name]))
        ratios = trust * of_w / (of_g + weight_decay * of_w)
        # A gradient of almost nothing would make it infinite.
        ratios = ratios.clamp_(max=torch.finfo(ratios.dtype).max)
        is_there = (of_w > 0) & (of_g > 0)
        found[name] = torch.where(is_there, ratios, torch.full_like(ratios, torch.nan)).view(-1, *[1] * (w.ndim - 1))
    return found


def scale_tensors(rows: Tensor, ratios: dict[str, Tensor], layout: RowLayout) -> None:
    """Multiplies each parameter tensor in rows [active, Q] by its ratio; by 1 where there is none."""
    tensors = layout.views(rows)
    for name, ratio in ratios.items():
        tensors[name].mul_(torch.where(ratio.isnan(), torch.ones_like(ratio), ratio))
