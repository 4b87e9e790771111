"""Sums of the lanes' losses over the steps of a round."""

from __future__ import annotations

import torch
from torch import Tensor

from fedopt.vectors.layout import finest


class LossSums:
    """Sums in float64 where the device has it, added step by step: a lane's sum does not depend on other lanes."""

    def __init__(self, lanes: int, like: Tensor) -> None:
        self.sums = torch.zeros(lanes, dtype=finest(like), device=like.device)

    def add(self, losses: Tensor) -> None:
        """Adds the losses of one step, [active]."""
        self.sums[: len(losses)] += losses

    def take(self) -> Tensor:
        """The sums, [lanes], which are set back to zero."""
        found = self.sums.clone()
        self.sums.zero_()
        return found
