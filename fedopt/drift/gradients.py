"""How much the objectives of a round's clients differ, from their full gradients at the round's model.

Dissimilarity as in Karimireddy et al. 2020 (arXiv:1910.06378) and Li et al. 2020 (arXiv:1812.06127). Gradients are
aggregated like updates; sum w_i |g_i - g|^2 = sum w_i |g_i|^2 - |g|^2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedopt.drift.layers import Layers
from fedopt.drift.records import GradientDrift, LayerScale, ratio

GRADIENT = "gradient at x"
"""The name under which clients send grad f_i(x) beside the algorithm's own vectors, in rounds that measure it."""


def measure_gradients(
    squares: Mapping[int, float], shares: Mapping[int, float], g: Tensor, d: Tensor, x: Tensor, layers: Layers
) -> GradientDrift:
    """The measures, from |g_i|^2 and p_i of each client that sent g_i, and the means g and d, [P] in float64."""
    clients = sorted(squares)
    total = sum(shares[client] for client in clients)
    second = sum(shares[client] / total * squares[client] for client in clients)
    square = torch.dot(g, g).item()
    lengths = square**0.5 * torch.linalg.vector_norm(d).item()
    return GradientDrift(
        norm=square**0.5,
        zeta2=max(0.0, second - square),
        b2=ratio(second, square),
        alignment=-torch.dot(d, g).item() / lengths if lengths > 0 else None,
        layers={
            name: LayerScale(gradient=gradient, weights=weights, ratio=gradient / weights if weights > 0 else None)
            for name, gradient, weights in zip(layers.names, layers.norms(g), layers.norms(x), strict=True)
        },
    )
