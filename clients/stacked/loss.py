"""Cross-entropy on lanes: the mean over each lane's real samples, and its gradient with respect to the logits."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from clients.lanes.batches import LaneBatch
from clients.lanes.storage import Scratch
from fedopt.vectors.rows import aligned

STEPS, BYTES = 64, 2**18
"""Losses are computed for so many steps at once, or for fewer if their logits take more memory than this."""

FEW_CLASSES = 64
"""Up to so many classes, subtracting one-hot targets is faster than changing one number a sample."""


class StackedLoss(Protocol):
    """A loss on lanes with its gradient."""

    sums: Tensor
    """[lanes], to which counted losses are added."""

    def prepare(self, logits: Tensor, bias: Tensor | None) -> None:
        """The logits will be written to `logits`, [lanes, B, classes], without the bias, [lanes, 1, classes]."""
        ...

    def __call__(self, batch: LaneBatch, counts: bool) -> Tensor:
        """The gradient of width * loss, [lanes, B, classes]. The losses are added up if they count."""
        ...

    def flush(self) -> None:
        """Adds up the losses of the steps so far."""
        ...


class CrossEntropy:
    """Works on transposed logits, [classes, lanes * B]: exponentials and sums then run along the samples.

    A step needs the gradient only. Logits are stored, and their losses are computed for many steps at once.
    """

    def __init__(self, scratch: Scratch, sums: Tensor) -> None:
        """Losses are added to `sums`, [lanes], step by step: the same bits beside any other lanes."""
        self._scratch, self.sums = scratch, sums

    def prepare(self, logits: Tensor, bias: Tensor | None) -> None:
        """The logits will be written to `logits`, [lanes, B, classes], without the bias, [lanes, 1, classes]."""
        lanes, batch, classes = logits.shape
        row = aligned(batch, logits)  # gaps after each lane's samples, for the reason given in `whole_rows`
        steps = max(1, min(STEPS, BYTES // (classes * lanes * row * logits.element_size())))
        self._logits, self._bias = logits, bias
        self._classes, self._dtype = classes, logits.dtype
        self._table = self._scratch("table", 1, (steps, classes, lanes, row))[0]
        self._columns_of = self._table.flatten(2).unbind()
        self._places_of = self._table[..., :batch].permute(0, 2, 3, 1).unbind()
        self._transposed = self._scratch("transposed", 1, (classes, lanes, row))[0]
        self._columns = self._transposed.flatten(1)
        self._probabilities = self._transposed[:, :, :batch].permute(1, 2, 0)
        self._minus_one = logits.new_full((1, 1, 1), -1.0).expand(1, lanes, batch)
        self._gradient = self._scratch("gradient", lanes, (batch, classes))
        self._most = steps
        self._sums = self.sums[:lanes]
        self._pending: list[tuple[Tensor, Tensor | None]] = []  # targets and weights

    def __call__(self, batch: LaneBatch, counts: bool) -> Tensor:
        """The gradient of width * loss, [lanes, B, classes]. The losses are added up if they count."""
        step = len(self._pending)
        if self._bias is None:
            self._places_of[step].copy_(self._logits)
        else:
            torch.add(self._logits, self._bias, out=self._places_of[step])
        torch.softmax(self._columns_of[step], 0, out=self._columns)
        if counts:
            self._pending.append((batch.y, batch.weights))
            if step + 1 == self._most:
                self.flush()
        if self._classes <= FEW_CLASSES:
            torch.sub(self._probabilities, batch.one_hot(self._classes, self._dtype), out=self._gradient)
        else:
            self._transposed.scatter_add_(0, batch.y.unsqueeze(0), self._minus_one)
            self._gradient.copy_(self._probabilities)
        if batch.weights is not None:
            self._gradient.mul_(batch.weights[..., None])
        return self._gradient

    def flush(self) -> None:
        """Adds up the losses of the steps whose logits are stored."""
        if not self._pending:
            return
        table = self._table[: len(self._pending)]
        targets = torch.stack([y for y, _ in self._pending])
        logs = torch.log_softmax(table.flatten(2), 1).view(table.shape)
        found = logs.gather(1, targets[:, None])[:, 0].to(self._sums.dtype)
        weights = [own for _, own in self._pending]
        if any(own is not None for own in weights):
            one = found.new_ones(targets.shape[1:])
            found *= torch.stack([one if own is None else own.to(one) for own in weights])
        # Cumulative sums have a fixed order.
        of_steps = found.cumsum(2)[..., -1].div_(-targets.shape[2])
        self._sums.copy_(torch.cat([self._sums[None], of_steps]).cumsum(0)[-1])
        self._pending.clear()
