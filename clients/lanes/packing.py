"""Flat vectors [P] <-> rows [Q] in which every parameter starts at a cache line; the gaps are zero.

Elementwise operations and norms give the same result on rows as on flat vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedopt.vectors.layout import Layout, Vectors
from fedopt.vectors.rows import aligned


class Packing:
    """The place of each parameter in a row."""

    def __init__(self, layout: Layout, like: Tensor) -> None:
        self.layout = layout
        self._sizes = layout.sizes
        self._widths = [aligned(size, like) for size in self._sizes]
        self.starts: Sequence[int] = [sum(self._widths[:place]) for place in range(len(self._widths))]
        """Where each parameter begins in a row, in the order of the layout."""
        self.width = sum(self._widths)
        """Q, the length of a row."""
        self._dense = self.width == layout.size

    def pack(self, flat: Tensor) -> Tensor:
        """Rows [..., Q] of flat vectors [..., P]; the vectors themselves where there are no gaps."""
        if self._dense:
            return flat
        rows = flat.new_zeros(*flat.shape[:-1], self.width)
        for part, view in zip(torch.split(flat, self._sizes, dim=-1), self._parts(rows), strict=True):
            view.copy_(part)
        return rows

    def pack_each(self, vectors: Sequence[Tensor]) -> Tensor:
        """Rows [len(vectors), Q] of flat vectors [P], each of which is read once."""
        rows = vectors[0].new_empty(len(vectors), self.width)
        for start, size, width in zip(self.starts, self._sizes, self._widths, strict=True):
            rows[:, start + size : start + width].zero_()
        for vector, row in zip(vectors, rows, strict=True):
            for part, view in zip(torch.split(vector, self._sizes), self._parts(row), strict=True):
                view.copy_(part)
        return rows

    def unpack(self, rows: Tensor) -> Tensor:
        """The flat vectors [..., P] in rows [..., Q]."""
        return rows if self._dense else torch.cat(self._parts(rows), dim=-1)

    def unpack_into(self, out: Tensor, row: Tensor) -> None:
        """Writes the flat vector in a row [Q] to out [P]."""
        for part, view in zip(torch.split(out, self._sizes), self._parts(row), strict=True):
            part.copy_(view)

    def pack_all(self, vectors: Vectors) -> dict[str, Tensor]:
        return {name: self.pack(vector) for name, vector in vectors.items()}

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """The parameters in rows [..., Q] by name, each [..., *shape]."""
        shapes = zip(self.layout.names, self.layout.shapes, self._parts(rows), strict=True)
        return {name: part.view((*rows.shape[:-1], *shape)) for name, shape, part in shapes}

    def bind(self, module: nn.Module, row: Tensor) -> list[nn.Parameter]:
        """Makes the module's parameters views of `row` [Q]; returns them in the order of the layout."""
        parameters = dict(module.named_parameters())
        for name, view in self.views(row).items():
            parameters[name].data = view
        return [parameters[name] for name in self.layout.names]

    def _parts(self, rows: Tensor) -> list[Tensor]:
        return [rows.narrow(-1, start, size) for start, size in zip(self.starts, self._sizes, strict=True)]
