"""How well numbers are predicted: what takes the place of accuracy where targets are no classes."""

from __future__ import annotations

import torch
from torch import Tensor

from fedopt.storage.record import Line


class Regression(Line):
    """Errors of the model on the test set."""

    mse: float
    """Mean squared error over samples and outputs."""
    mae: float
    """Mean absolute error over samples and outputs."""
    r2: float
    """1 - sum (y - z)^2 / sum (y - mean y)^2 for outputs z, a mean over the numbers of a sample: 1 without errors, 0
    for the mean as prediction. Where all targets are equal it is 1 without errors, and else 0."""

    @classmethod
    def of(cls, outputs: Tensor, targets: Tensor) -> Regression:
        """Of outputs [n, k] for targets [n, k]."""
        wide = torch.float64 if outputs.device.type != "mps" else outputs.dtype
        outputs, targets = outputs.to(wide), targets.to(wide)
        errors = outputs - targets
        left = errors.square().sum(0)
        spread = (targets - targets.mean(0)).square().sum(0)
        explained = torch.where(spread > 0, 1 - left / spread, (left == 0).to(wide))
        return cls(mse=errors.square().mean().item(), mae=errors.abs().mean().item(), r2=explained.mean().item())
