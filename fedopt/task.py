"""What is learned: a module, and the loss of its outputs. Engines know nothing else about the problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F


class Loss(Protocol):
    """A loss with the interface of torch.nn.functional."""

    def __call__(self, outputs: Tensor, targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
        """The mean over the batch, or with reduction "none" the loss of each sample [B]."""
        ...


@dataclass(frozen=True)
class Task:
    """A module (its trainable parameters are federated, everything else stays as built) and its loss."""

    module: nn.Module
    loss: Loss = F.cross_entropy
    draws: bool = False
    """Whether the module draws random numbers in train mode; engines then key them by round, client and step."""
