"""Losses of a model's outputs that every backend knows, each a mean over samples.

With class indices [B], the target of mse_loss, l1_loss, kl_div and binary_cross_entropy_with_logits is 1 at the class
and 0 elsewhere. With numbers [B, outputs] it is these numbers. A sample's loss is a mean over the outputs, but for
kl_div and cross_entropy, which sum over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

OutputLossName = Literal["cross_entropy", "mse_loss", "l1_loss", "kl_div", "binary_cross_entropy_with_logits"]


@dataclass(frozen=True)
class OutputLoss:
    """Has the interface of torch.nn.functional: see `fedopt.task.Loss`."""

    name: OutputLossName
    label_smoothing: float = 0.0
    """Of cross_entropy."""
    class_weights: tuple[float, ...] = ()
    """Of cross_entropy. A sample's loss is multiplied by the weight of its class, and means are over samples: torch
    divides by the weights in a batch, which would make a client's objective depend on how it is cut into batches."""

    def __call__(self, outputs: Tensor, targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
        each = self._each(outputs, targets)
        return each.mean() if reduction == "mean" else each

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, [B]."""
        if self.name == "cross_entropy":
            weights = outputs.new_tensor(self.class_weights) if self.class_weights else None
            return F.cross_entropy(outputs, targets, weights, label_smoothing=self.label_smoothing, reduction="none")
        wanted = targets if targets.is_floating_point() else indicators(targets, outputs)
        if self.name == "kl_div":
            return F.kl_div(torch.log_softmax(outputs, -1), wanted, reduction="none").sum(-1)
        if self.name == "mse_loss":
            return (outputs - wanted).square().mean(-1)
        if self.name == "l1_loss":
            return (outputs - wanted).abs().mean(-1)
        return F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(-1)


def indicators(targets: Tensor, outputs: Tensor) -> Tensor:
    """Zeros with a one at each sample's class, like `outputs` [B, classes]. torch.func.vmap takes it too."""
    classes = torch.arange(outputs.shape[-1], device=outputs.device)
    return (targets.unsqueeze(-1) == classes).to(outputs.dtype)
