"""Cross-entropy on lanes: the mean over each lane's real samples, and its gradient at the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from clients.lanes.batches import LaneBatch
from clients.lanes.storage import Scratch, aligned

STEPS, BYTES = 64, 2**18
"""How many steps' logits are kept at most until their losses are computed, and what they may take up."""


class CrossEntropy:
    """Works on logits turned round, [classes, lanes * B]: exponentials and sums then run along the samples.

    A step needs the gradient alone. Logits are kept, and turned into losses many steps at once.
    """

    def __init__(self, scratch: Scratch, sums: Tensor) -> None:
        """Losses are added to `sums`, [lanes], step by step, whoever else is there: the same bits for any company."""
        self._scratch, self.sums = scratch, sums

    def prepare(self, logits: Tensor, bias: Tensor | None) -> None:
        """Logits are what will be in `logits`, [lanes, B, classes], with the bias added, [lanes, 1, classes]."""
        lanes, batch, classes = logits.shape
        room = aligned(batch, logits)  # gaps after each lane's samples, for the reason that `whole_rows` gives
        steps = max(1, min(STEPS, BYTES // (classes * lanes * room * logits.element_size())))
        self._logits, self._bias = logits, bias
        self._table = self._scratch("table", 1, (steps, classes, lanes, room))[0]
        self._columns_of = self._table.flatten(2).unbind()
        self._places_of = self._table[..., :batch].permute(0, 2, 3, 1).unbind()
        self._turned = self._scratch("turned", 1, (classes, lanes, room))[0]
        self._columns = self._turned.flatten(1)
        self._there = self._turned[:, :, :batch].permute(1, 2, 0)
        self._minus_one = logits.new_full((1, 1, 1), -1.0).expand(1, lanes, batch)
        self._gradient = self._scratch("gradient", lanes, (batch, classes))
        self._room = steps
        self._sums = self.sums[:lanes]
        self._kept: list[tuple[Tensor, Tensor | None]] = []  # targets and weights

    def __call__(self, batch: LaneBatch, counts: bool) -> Tensor:
        """The gradient of width * loss, [lanes, B, classes]; the losses are added up if they count."""
        step = len(self._kept)
        if self._bias is None:
            self._places_of[step].copy_(self._logits)
        else:
            torch.add(self._logits, self._bias, out=self._places_of[step])
        torch.softmax(self._columns_of[step], 0, out=self._columns)
        if counts:
            self._kept.append((batch.y, batch.weights))
            if step + 1 == self._room:
                self.settle()
        if batch.one_hot is not None:
            torch.sub(self._there, batch.one_hot, out=self._gradient)
        else:
            self._turned.scatter_add_(0, batch.y.unsqueeze(0), self._minus_one)
            self._gradient.copy_(self._there)
        if batch.weights is not None:
            self._gradient.mul_(batch.weights[..., None])
        return self._gradient

    def settle(self) -> None:
        """Adds up the losses of the steps whose logits are kept."""
        if not self._kept:
            return
        table = self._table[: len(self._kept)]
        targets = torch.stack([y for y, _ in self._kept])
        logs = torch.log_softmax(table.flatten(2), 1).view(table.shape)
        found = logs.gather(1, targets[:, None])[:, 0].to(self._sums.dtype)
        weights = [own for _, own in self._kept]
        if any(own is not None for own in weights):
            one = found.new_ones(targets.shape[1:])
            found *= torch.stack([one if own is None else own.to(one) for own in weights])
        # Running sums, for a fixed order.
        of_steps = found.cumsum(2)[..., -1].div_(-targets.shape[2])
        self._sums.copy_(torch.cat([self._sums[None], of_steps]).cumsum(0)[-1])
        self._kept.clear()
