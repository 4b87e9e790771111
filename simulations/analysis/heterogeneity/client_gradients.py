"""How the gradients of clients lie to each other: the spectrum of their covariance, and their angles.

With g_i, [P], the gradient of client i's loss at one model, p_i its share of the objective and g = sum p_i g_i:

    C = sum p_i (g_i - g)(g_i - g)'   the covariance, [P, P], of rank N - 1 at most

Its eigenvalues beside zeros are those of the Gram matrix of sqrt(p_i) (g_i - g), [N, N]. The g_i are centered before
products are taken: differences of products would lose the digits in which clients differ little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedopt.drift.layers import Layers
from fedopt.vectors.layout import Layout

BINS = 36
"""Of the angles' histogram, from 0 to 180 degrees."""

QUANTILES = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True)
class Angles:
    """Between the gradients of each two clients, in degrees; all pairs count alike."""

    pairs: int
    """Those of which both gradients are not zero; the others have no angle."""
    median: float | None
    quantiles: list[float]
    """At QUANTILES; empty without pairs."""
    above_90: float | None
    """The share of pairs in which a step along one client's negative gradient raises the other's loss."""
    histogram: list[int]
    """Pairs in each of BINS equal parts of 0 to 180 degrees."""


@dataclass(frozen=True)
class Heterogeneity:
    """The measures of all entries, or of a layer's."""

    entries: int
    gradient: float
    """|g|."""
    eigenvalues: list[float]
    """The largest N of C, falling."""
    variance: float
    """tr C = sum p_i |g_i - g|^2, zeta^2 in metrics.jsonl."""
    largest: float | None
    """The share of the largest eigenvalue in the trace; None where all gradients are equal, as the next."""
    dimension: float | None
    """(sum l)^2 / sum l^2 of the eigenvalues l: in how many directions clients differ, between 1 and N - 1."""
    dissimilarity: float | None
    """tr C / |g|^2; None where g is zero, as the next."""
    b2: float | None
    """sum p_i |g_i|^2 / |g|^2 = 1 + dissimilarity, B^2 of SCAFFOLD (with G = 0) and of FedProx."""
    angles: Angles


@dataclass(frozen=True)
class ClientSpectrum:
    """Of the whole model, and of each layer: a module's weight and bias together."""

    whole: Heterogeneity
    layers: dict[str, Heterogeneity]


def client_spectrum(gradients: Tensor, shares: Sequence[float], layout: Layout) -> ClientSpectrum:
    """Of the clients' gradients [N, P] in float64, and their shares, which add up to 1."""
    layers = Layers.of(layout)
    parts = torch.split(gradients, [size for _, size in layers.pieces], dim=1)
    own = {
        name: torch.cat([part for (layer, _), part in zip(layers.pieces, parts, strict=True) if layer == place], dim=1)
        for place, name in enumerate(layers.names)
    }
    return ClientSpectrum(
        heterogeneity(gradients, shares), {name: heterogeneity(part, shares) for name, part in own.items()}
    )


def heterogeneity(gradients: Tensor, shares: Sequence[float]) -> Heterogeneity:
    """The measures of gradients [N, entries] in float64."""
    p = torch.tensor(shares, dtype=gradients.dtype)[:, None]
    mean = (p * gradients).sum(0)
    scaled = p.sqrt() * (gradients - mean)
    gram = scaled @ scaled.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).flip(0)
    variance, square = float(gram.trace()), float(mean @ mean)
    varies = variance > 0
    return Heterogeneity(
        entries=gradients.shape[1],
        gradient=math.sqrt(square),
        eigenvalues=values.tolist(),
        variance=variance,
        largest=float(values[0]) / variance if varies else None,
        dimension=float(values.sum() ** 2 / values.square().sum()) if varies else None,
        dissimilarity=variance / square if square > 0 else None,
        b2=float((p[:, 0] * gradients.square().sum(1)).sum()) / square if square > 0 else None,
        angles=angles_between(gradients),
    )


def angles_between(gradients: Tensor) -> Angles:
    """Of all pairs of rows [N, entries]."""
    lengths = torch.linalg.vector_norm(gradients, dim=1)
    directions = gradients[lengths > 0] / lengths[lengths > 0, None]
    cosines = (directions @ directions.T).clamp(-1, 1)
    first, second = np.triu_indices(len(directions), 1)
    found = np.degrees(np.arccos(cosines.numpy()[first, second]))
    histogram, _ = np.histogram(found, BINS, (0.0, 180.0))
    return Angles(
        pairs=len(found),
        median=float(np.median(found)) if len(found) else None,
        quantiles=[float(value) for value in np.quantile(found, QUANTILES)] if len(found) else [],
        above_90=float((found > 90).mean()) if len(found) else None,
        histogram=histogram.tolist(),
    )
