"""A model's layers as slices of the flat vector, for measures by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedopt.drift.norms import square_norm
from fedopt.vectors.layout import Layout

MOST_LAYERS = 16
"""A model with more layers is measured by its submodules, at the deepest level that has at most so many."""


@dataclass(frozen=True)
class Layers:
    """Names of layers, and the slices of the flat vector that belong to each, in the vector's order."""

    names: tuple[str, ...]
    pieces: tuple[tuple[int, int], ...]
    """(layer, entries) of each slice; together they cover the whole vector."""

    @classmethod
    def whole(cls, size: int) -> Layers:
        """No layers: the vector as one slice."""
        return cls((), ((0, size),))

    @classmethod
    def of(cls, layout: Layout) -> Layers:
        """One layer for each module with parameters, weight and bias together, under the module's name."""
        owners = [name.rpartition(".")[0] or name for name in layout.names]
        depth = max(owner.count(".") + 1 for owner in owners)
        while depth > 1 and len({_prefix(owner, depth) for owner in owners}) > MOST_LAYERS:
            depth -= 1
        owners = [_prefix(owner, depth) for owner in owners]
        names = tuple(dict.fromkeys(owners))
        pieces: list[tuple[int, int]] = []
        for owner, size in zip(owners, layout.sizes, strict=True):
            layer = names.index(owner)
            if pieces and pieces[-1][0] == layer:
                pieces[-1] = (layer, pieces[-1][1] + size)
            else:
                pieces.append((layer, size))
        return cls(names, tuple(pieces))

    def norms(self, vector: Tensor) -> list[float]:
        """The norm of each layer's part of a vector [P], in the order of `names`."""
        if not self.names:
            return []
        squares = [0.0] * len(self.names)
        parts = torch.split(vector, [size for _, size in self.pieces])
        for (layer, _), part in zip(self.pieces, parts, strict=True):
            squares[layer] += square_norm(part)
        return [square**0.5 for square in squares]


def _prefix(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])
