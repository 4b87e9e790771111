"""A class for every position of a sample, such as the next character after each character of a text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedopt.task import Loss


@dataclass(frozen=True)
class OfPositions:
    """A loss of outputs [B, length, classes] and classes [B, length]: that of a sample is the mean over its positions.

    Has the interface of torch.nn.functional: see `fedopt.task.Loss`.
    """

    loss: Loss
    """Of outputs [B, classes] and classes [B]."""

    def __call__(self, outputs: Tensor, targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
        flat, wanted = outputs.flatten(0, 1), targets.flatten()
        if reduction == "mean":
            return self.loss(flat, wanted)
        return self.loss(flat, wanted, reduction="none").view(targets.shape).mean(1)
