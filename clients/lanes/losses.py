"""Sums of the lanes' losses over the steps of a round."""

from __future__ import annotations

import torch
from torch import Tensor

from fedopt.vectors.layout import finest


class LossSums:
    """Kept in float64 where there is one, and added to step by step: what a lane's come to is its own affair."""

    def __init__(self, lanes: int, like: Tensor) -> None:
        self.sums = torch.zeros(lanes, dtype=finest(like), device=like.device)

    def add(self, losses: Tensor) -> None:
        """One step's, of the active lanes."""
        self.sums[: len(losses)] += losses

    def take(self) -> Tensor:
        """[lanes]; from here on they begin at zero."""
        found = self.sums.clone()
        self.sums.zero_()
        return found
