"""Lookahead: Zhang, Lucas, Hinton, Ba, "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019
(arXiv:1907.08610), Algorithm 1.

    theta <- the base's step; after every k = sync_period of them:  phi <- phi + slow_step (theta - phi),  theta <- phi

The base's moments go on over a synchronization, as in the authors' code by default; the paper also resets or
interpolates them. The slow weights phi start at the server's model in each round. A client whose number of steps is no
multiple of k sends what the steps after its last synchronization have led to: with fewer than k steps, the base's
model. So k should divide the number of local steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Gradient, LaneOptimizer
from fedopt.optimizers.wrapper import Wrapper, WrapperLanes
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import RowLayout


class Lookahead(Wrapper):
    sync_period: int = Field(5, ge=1)
    """Steps of the base between two of the slow weights; k in the paper."""
    slow_step: float = Field(0.5, gt=0, le=1)
    """The share of the way from the slow weights to the fast ones that the slow ones go; alpha in the paper."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return LookaheadLanes(theta, self.base.build(theta, layout), self)

    @property
    def vectors_touched(self) -> int:
        return self.base.vectors_touched + 1

    def accumulated(self, rates: Sequence[float], proximal: float = 0.0) -> float | None:
        """None with a proximal term: the base's moments are then of points that it has been moved from."""
        moved = slow = before = 0.0
        for step in range(1, len(rates) + 1):
            so_far = None if proximal else self.base.accumulated(rates[:step])
            if so_far is None:
                return None
            moved, before = moved + so_far - before, so_far
            if step % self.sync_period == 0:
                moved = slow = slow + self.slow_step * (moved - slow)
        return moved


class LookaheadLanes(WrapperLanes):
    def __init__(self, theta: Tensor, base: LaneOptimizer, settings: Lookahead) -> None:
        super().__init__(theta, base)
        self._settings = settings
        self.recordable = False  # the steps that synchronize differ from the others
        self._slow = torch.zeros_like(theta)
        self._taken = 0

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._slow[:lanes].copy_(self.active)
        self._taken = 0

    def step(self, gradient: Gradient) -> None:
        self._base.step(gradient)
        self._taken += 1
        if self._taken % self._settings.sync_period == 0:
            slow = self._slow[: len(self.active)]
            slow.add_(self.active - slow, alpha=self._settings.slow_step)
            self.active.copy_(slow)
