"""Minibatches for lanes: the plans of several clients side by side, gathered step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedopt.data.batches import BatchPlan


@dataclass(frozen=True)
class LaneBatch:
    """One step's samples of the active lanes: x [active, width, ...], y [active, width]."""

    x: Tensor
    y: Tensor
    counts: list[int]
    """How many samples of each lane are real; the rest of its row is padding."""

    @property
    def active(self) -> int:
        return len(self.counts)

    def lanes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each lane's own samples, without padding."""
        width = self.y.shape[1]
        for x, y, count in zip(self.x.unbind(), self.y.unbind(), self.counts, strict=True):
            yield (x, y) if count == width else (x[:count], y[:count])

    def weights(self, dtype: torch.dtype) -> Tensor:
        """1 / count for a lane's real samples, 0 for padding, [active, width]."""
        counts = torch.tensor(self.counts, device=self.y.device)[:, None]
        real = torch.arange(self.y.shape[1], device=self.y.device) < counts
        return real.to(dtype) / counts


class LaneBatches:
    """The minibatches of lanes sorted by falling steps, so that the active ones are always a prefix."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        indices: Sequence[np.ndarray],
        plans: Sequence[BatchPlan],
        width: int | None = None,
    ) -> None:
        """`indices` are each lane's samples in x and y; `width` pads all batches to one width."""
        self._x, self._y = x, y
        self._counts = [plan.counts.tolist() for plan in plans]
        self.steps_of_lanes = [plan.steps for plan in plans]
        self.steps = self.steps_of_lanes[0]
        width = width or max(plan.positions.shape[1] for plan in plans)
        # Full batches are the same at every step: they are laid out, and gathered, once.
        self._constant = all(plan.positions.strides[0] == 0 for plan in plans)
        rows = 1 if self._constant else self.steps
        samples = np.zeros((rows, len(plans), width), dtype=np.int64)
        for lane, (own, plan) in enumerate(zip(indices, plans, strict=True)):
            positions = plan.positions[:rows]
            samples[: len(positions), lane, : positions.shape[1]] = own[positions]
        self._samples = torch.from_numpy(samples).to(x.device)
        self._gathered: LaneBatch | None = None

    def active(self, step: int) -> int:
        """How many lanes still have work at `step`."""
        return sum(steps > step for steps in self.steps_of_lanes)

    def at(self, step: int) -> LaneBatch:
        active = self.active(step)
        if self._constant and self._gathered is not None and self._gathered.active == active:
            return self._gathered
        samples = self._samples[0 if self._constant else step, :active]
        flat = samples.reshape(-1)
        self._gathered = LaneBatch(
            self._x.index_select(0, flat).view(*samples.shape, *self._x.shape[1:]),
            self._y.index_select(0, flat).view(*samples.shape, *self._y.shape[1:]),
            [counts[step] for counts in self._counts[:active]],
        )
        return self._gathered
