"""How far a round's updates lie apart, from sums that take one update at a time.

The mean d comes from the aggregation, and |d_i| and |d_i|^2 of each client are numbers. Only the cosine needs a vector:
u = sum d_i / |d_i| over n clients has |u|^2 = n + sum of cos(d_i, d_j) over ordered pairs, so the mean cosine is
(|u|^2 - n) / (n (n - 1)).

u is summed in units of 2^-33 and starts at ANCHOR, where the spacing of float64 is 1: each addition rounds to whole
units, and whole numbers add up exactly in any order. The error of an entry is at most 2^-34 per update, far below the
precision that a cosine needs, and an update costs one pass over memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from fedopt.drift.layers import Layers
from fedopt.drift.records import Drift, UpdateDrift, ratio
from fedopt.vectors.exact_sum import CHUNK

UNIT = 2.0**33
"""The length of a unit vector in these units, so also the largest entry."""

ANCHOR = 1.5 * 2.0**52
"""Between 2^52 and 2^53 float64 holds exactly the whole numbers; 2^18 updates starting at the middle stay inside."""


class UpdateSums:
    """Running sums over a round's updates: squared norms of each client, and the sum of directions."""

    def __init__(self, layers: Layers, like: Tensor) -> None:
        self._layers = layers
        # MPS has no float64: its vectors are measured on the CPU.
        self._device = torch.device("cpu") if like.device.type == "mps" else like.device
        rows = 2 if layers.names else 1
        self._squares: dict[int, Tensor] = {}
        self._shares: dict[int, float] = {}
        self._pieces = _small_enough(layers) if self._device.type == "cpu" else layers.pieces
        self._layer_of_piece = torch.tensor([layer for layer, _ in self._pieces], device=self._device)
        self._sizes = [size for _, size in self._pieces]
        directions = torch.full((rows, like.numel()), ANCHOR, dtype=torch.float64, device=self._device)
        self._rows = [torch.split(row, self._sizes) for row in directions]
        self._scratch = torch.empty(max(self._sizes), dtype=torch.float64, device=self._device)

    def fold(self, client: int, update: Tensor, share: float) -> None:
        """Adds the update d_i [P] of a client with share p_i."""
        parts = torch.split(update.detach(), self._sizes)
        by_layer = self._by_layer(self._in_float64(parts))
        self._squares[client], self._shares[client] = by_layer, share
        whole, *each = _scales(torch.cat([by_layer.sum()[None], by_layer]))
        for (layer, _), part, *rows in zip(self._pieces, self._in_float64(parts), *self._rows, strict=True):
            for into, scale in zip(rows, (whole, each[layer]), strict=False):
                into.add_(part, alpha=scale)

    def measure(self, mean: Tensor) -> Drift:
        """The measures, given d [P] in float64. Call it once: it overwrites the sums."""
        clients = sorted(self._shares)
        shares = torch.tensor([self._shares[client] for client in clients], dtype=torch.float64)
        weights = (shares / shares.sum())[:, None]
        squares = torch.stack([self._squares[client] for client in clients]).cpu()  # [clients, layers]
        mean_squares = self._by_layer(torch.split(mean.to(self._device), self._sizes)).cpu()
        pairs = [self._by_layer(part.sub_(ANCHOR) for part in row).cpu() / UNIT**2 for row in self._rows]

        whole = _measures(weights, squares.sum(1, keepdim=True), mean_squares.sum()[None], pairs[0].sum()[None])[0]
        by_layer = _measures(weights, squares, mean_squares, pairs[1]) if self._layers.names else []
        layers = dict(zip(self._layers.names, by_layer, strict=True))
        norms = squares.sum(1).sqrt().tolist()
        longest = max(norms)
        return Drift(**whole.model_dump(), layers=layers, longest=longest, longest_client=clients[norms.index(longest)])

    def _in_float64(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """Each part in turn, copied into one float64 buffer: a copy of the whole vector would not fit the caches."""
        for part in parts:
            yield self._scratch[: len(part)].copy_(part)

    def _by_layer(self, parts: Iterable[Tensor]) -> Tensor:
        """|part|^2 summed by layer, [layers]."""
        squares = torch.stack([torch.dot(part, part) for part in parts])
        if len(squares) == max(1, len(self._layers.names)):
            return squares
        return squares.new_zeros(max(1, len(self._layers.names))).index_add_(0, self._layer_of_piece, squares)


def _measures(weights: Tensor, squares: Tensor, mean_squares: Tensor, pairs: Tensor) -> list[UpdateDrift]:
    """The measures of each column, from weights [clients, 1], |d_i|^2 [clients, columns], |d|^2 and |u|^2 [columns]."""
    mean_square_norms = (weights * squares).sum(0).tolist()
    mean_norms = (weights * squares.sqrt()).sum(0).tolist()
    moving = (squares > 0).sum(0).tolist()  # an update of zero has no direction
    found: list[UpdateDrift] = []
    for column, square in enumerate(mean_squares.tolist()):
        n, second = moving[column], mean_square_norms[column]
        found.append(
            UpdateDrift(
                norm=square**0.5,
                mean_norm=mean_norms[column],
                dispersion=max(0.0, second - square),
                ratio=ratio(second, square),
                cosine=_cosine(pairs[column].item(), n) if n > 1 else None,
            )
        )
    return found


def _cosine(square: float, n: int) -> float:
    """Mean cosine over pairs, from |u|^2, clamped to [-1, 1] against rounding."""
    return min(1.0, max(-1.0, (square - n) / (n * (n - 1))))


def _scales(squares: Tensor) -> list[float]:
    """UNIT / norm; 0 for a vector of zeros."""
    return [UNIT / square**0.5 if square > 0 else 0.0 for square in squares.tolist()]


def _small_enough(layers: Layers) -> tuple[tuple[int, int], ...]:
    """The pieces, cut so that each fits a CPU's caches."""
    return tuple((layer, min(CHUNK, size - start)) for layer, size in layers.pieces for start in range(0, size, CHUNK))
