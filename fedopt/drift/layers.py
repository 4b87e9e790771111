"""Layers of a model as places in the flat vector: what is measured "by layer" is measured by these."""

from __future__ import annotations

from dataclasses import dataclass

from fedopt.vectors.layout import Layout

MOST_LAYERS = 16
"""A deeper model's layers are taken together by the parts of the model they belong to."""


@dataclass(frozen=True)
class Layers:
    """Names of layers, and the pieces of the flat vector that belong to each, in the vector's order."""

    names: tuple[str, ...]
    pieces: tuple[tuple[int, int], ...]
    """(layer, entries) of each piece; together they are the whole vector."""

    @classmethod
    def whole(cls, size: int) -> Layers:
        """No layers: the vector in one piece."""
        return cls((), ((0, size),))

    @classmethod
    def of(cls, layout: Layout) -> Layers:
        """Weight and bias together, under the name of the module that has them."""
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


def _prefix(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])
