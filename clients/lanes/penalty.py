"""Penalties of the clients' losses, l1 |y|_1 + l2 / 2 |y|^2, over all trainable parameters.

They are a part of every gradient, as if the model's loss contained them: of what corrections, clipping and the
optimizer see, and of full gradients. Losses are reported without them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clients.lanes.backends import DefersLosses, LaneGradients
from clients.lanes.batches import LaneBatch


class PenalizedGradients:
    """Implements `LaneGradients` and `DefersLosses` of `clients.lanes.backends`."""

    def __init__(self, base: LaneGradients, l1: float, l2: float) -> None:
        self._base, self._l1, self._l2 = base, l1, l2
        self.packing, self.theta = base.packing, base.theta
        self._deferred = base if isinstance(base, DefersLosses) else None

    def __call__(self, batch: LaneBatch, counts: bool = True) -> Tensor:
        return self._base(batch, counts).add_(self._slope(batch.active))

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, counts: bool = True) -> None:
        slope = self._slope(batch.active)  # first: `into` may be theta itself
        self._base.accumulate(batch, into, keep, scale, counts)
        into[: batch.active].add_(slope, alpha=scale)

    def losses(self) -> Tensor:
        return self._base.losses()

    def flush_losses(self) -> None:
        if self._deferred is not None:
            self._deferred.flush_losses()

    def buffers(self) -> object:
        return None if self._deferred is None else self._deferred.buffers()

    def _slope(self, active: int) -> Tensor:
        """The penalties' gradient, [active, Q]; of l1 |y| at 0 it is 0. Gaps are zero and stay so."""
        theta = self.theta[:active]
        slope = theta * self._l2
        return slope.add_(torch.sign(theta), alpha=self._l1) if self._l1 else slope


def penalized(base: LaneGradients, l1: float, l2: float) -> LaneGradients:
    return PenalizedGradients(base, l1, l2) if l1 or l2 else base
