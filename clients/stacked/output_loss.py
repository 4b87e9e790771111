"""The losses of `fedopt.models.output_losses` on lanes, with their gradients with respect to the outputs.

    cross_entropy, kl_div    -sum_c q_c log p_c,  p = softmax(z),  gradient  p sum_c q_c - q
    the others               a mean over the outputs of a function of z_c and t_c

q are targets: smoothed and weighted ones, or the distribution that the data give.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.lanes.batches import LaneBatch
from clients.lanes.storage import Scratch
from fedopt.models.output_losses import OutputLoss


class StackedOutputLoss:
    """Has the methods of `clients.stacked.loss.CrossEntropy`."""

    def __init__(self, loss: OutputLoss, scratch: Scratch, sums: Tensor) -> None:
        """Losses are added to `sums`, [lanes], step by step: the same bits beside any other lanes."""
        self._loss, self._scratch, self.sums = loss, scratch, sums

    def prepare(self, logits: Tensor, bias: Tensor | None) -> None:
        """The outputs will be written to `logits`, [lanes, B, outputs], without the bias, [lanes, 1, outputs]."""
        self._logits, self._bias = logits, bias
        lanes, batch, self._outputs = logits.shape
        self._z = logits if bias is None else self._scratch("outputs", lanes, (batch, self._outputs))
        self._sums = self.sums[:lanes]
        weights = self._loss.class_weights
        self._class_weights = logits.new_tensor(weights) if weights else logits.new_ones(self._outputs)

    def __call__(self, batch: LaneBatch, counts: bool) -> Tensor:
        """The gradient of width * loss, [lanes, B, outputs]. The losses are added up if they count."""
        if self._bias is not None:
            torch.add(self._logits, self._bias, out=self._z)
        named = self._loss.name
        targets = batch.y if batch.y.is_floating_point() else batch.one_hot(self._outputs, self._z.dtype)
        if named in ("cross_entropy", "kl_div"):
            if named == "cross_entropy":
                smoothing = self._loss.label_smoothing
                targets = (targets * (1 - smoothing) + smoothing / self._outputs) * self._class_weights
            gradient = torch.softmax(self._z, -1).mul_(_total(targets)).sub_(targets)
        else:
            gradient = self._slope(targets).div_(self._outputs)
        if batch.weights is not None:
            gradient.mul_(batch.weights[..., None])
        if counts:
            self._add(self._each(targets), batch)
        return gradient

    def flush(self) -> None:
        """Nothing is deferred."""

    def _slope(self, targets: Tensor) -> Tensor:
        """The derivative of the function of each output."""
        if self._loss.name == "binary_cross_entropy_with_logits":
            return torch.sigmoid(self._z).sub_(targets)
        difference = self._z - targets
        return difference.mul_(2.0) if self._loss.name == "mse_loss" else difference.sign_()

    def _each(self, targets: Tensor) -> Tensor:
        """The loss of each sample, [lanes, B]."""
        z, named = self._z, self._loss.name
        if named == "cross_entropy":
            return _total(targets * torch.log_softmax(z, -1)).squeeze(-1).neg_()
        if named == "kl_div":
            return _total(torch.xlogy(targets, targets) - targets * torch.log_softmax(z, -1)).squeeze(-1)
        if named == "binary_cross_entropy_with_logits":
            found = F.binary_cross_entropy_with_logits(z, targets, reduction="none")
        else:
            difference = z - targets
            found = difference.square_() if named == "mse_loss" else difference.abs_()
        return _total(found).squeeze(-1).div_(self._outputs)

    def _add(self, losses: Tensor, batch: LaneBatch) -> None:
        found = losses.to(self._sums.dtype)
        if batch.weights is not None:
            found = found * batch.weights
        self._sums += found.cumsum(1)[:, -1].div_(batch.width)


def _total(values: Tensor) -> Tensor:
    """Sums over the outputs, [lanes, B, 1]. Cumulative sums have a fixed order."""
    return values.cumsum(-1)[..., -1:]
