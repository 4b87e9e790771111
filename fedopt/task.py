"""What is learned: a module and the loss of its outputs. The engines know no more about the problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs [B, ...], targets [B, ...]) -> the loss of each sample [B]."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


@dataclass(frozen=True)
class Task:
    """A module (its trainable parameters are federated, everything else stays as built) and its loss."""

    module: nn.Module
    loss: Loss = cross_entropy
