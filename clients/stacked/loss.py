"""Cross-entropy on lanes: the mean over each lane's real samples, and its gradient at the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from clients.stacked.storage import Scratch, aligned


class CrossEntropy:
    """Works on logits turned round, [classes, lanes * B]: exponentials and sums then run along the samples."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    def prepare(self, logits: Tensor) -> None:
        lanes, batch, classes = logits.shape
        self._logits = logits
        # Gaps after each lane's samples, for the reason that `whole_rows` gives.
        self._turned = self._scratch("turned", 1, (classes, lanes, aligned(batch, logits)))[0]
        self._columns = self._turned.view(classes, -1)
        self._there = self._turned[:, :, :batch].permute(1, 2, 0)
        self._minus_one = logits.new_full((1, 1, 1), -1.0).expand(1, lanes, batch)
        self._gradient = self._scratch("gradient", lanes, (batch, classes))

    def __call__(self, targets: Tensor, weights: Tensor | float) -> tuple[Tensor, Tensor]:
        """(losses [lanes], gradient [lanes, B, classes]); `weights` are those of each sample, [lanes, B] or one."""
        self._there.copy_(self._logits)
        torch.log_softmax(self._columns, 0, out=self._columns)
        nll = self._turned.gather(0, targets[None])[0]
        losses = nll.sum(1).mul_(-weights) if isinstance(weights, float) else nll.mul_(weights).sum(1).neg_()
        self._turned.exp_().scatter_add_(0, targets[None], self._minus_one)
        torch.mul(self._there, weights if isinstance(weights, float) else weights[..., None], out=self._gradient)
        return losses, self._gradient
