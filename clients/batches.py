"""Minibatches for lanes: the plans of several clients side by side, gathered step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedopt.data.batches import BatchPlan


def lane_width(samples: int, batch_size: int | Literal["full"]) -> int:
    """How many samples wide a lane is where all lanes of a group must be: at most a quarter is padding.

    A function of the client alone, so that what it learns does not depend on its neighbours.
    """
    if batch_size != "full" and samples >= batch_size:
        return batch_size
    unit = max(1, (1 << samples.bit_length()) // 8)
    width = -(-samples // unit) * unit
    return width if batch_size == "full" else min(width, batch_size)


class LaneBatch:
    """One step's samples of the active lanes; x is gathered when it is asked for."""

    def __init__(self, x: Tensor, rows: Tensor, y: Tensor, weights: Tensor | float, counts: Sequence[int]) -> None:
        """`rows` of x belong to the lanes, [active, width], with targets y; `counts` of each lane's are real.

        `weights` are 1 / count for a real sample and 0 for padding, [active, width], or one number for all.
        """
        self._x, self._rows = x, rows
        self.y, self.weights, self.counts = y, weights, counts
        self.active, self.width = rows.shape
        self.shape = (self.active, self.width, *x.shape[1:])

    @cached_property
    def x(self) -> Tensor:
        """[active, width, ...]"""
        return self._x.index_select(0, self._rows.reshape(-1)).view(self.shape)

    def gather(self, out: Tensor) -> None:
        """Writes x to `out`, [active * width, ...]."""
        torch.index_select(self._x, 0, self._rows.reshape(-1), out=out)

    def lanes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each lane's own samples, without padding."""
        for x, y, count in zip(self.x.unbind(), self.y.unbind(), self.counts, strict=True):
            yield (x, y) if count == self.width else (x[:count], y[:count])


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
        self._x = x
        self.steps_of_lanes = [plan.steps for plan in plans]
        self.steps = self.steps_of_lanes[0]
        width = width or max(plan.positions.shape[1] for plan in plans)
        # Full batches are the same at every step: they are laid out, and gathered, once.
        self._constant = all(plan.positions.strides[0] == 0 for plan in plans)
        rows = 1 if self._constant else self.steps
        samples = np.zeros((rows, len(plans), width), dtype=np.int64)
        counts = np.zeros((rows, len(plans)), dtype=np.int64)
        for lane, (own, plan) in enumerate(zip(indices, plans, strict=True)):
            positions = plan.positions[:rows]
            samples[: len(positions), lane, : positions.shape[1]] = own[positions]
            counts[: len(positions), lane] = plan.counts[:rows]
        self._active = (np.arange(self.steps)[:, None] < np.array(self.steps_of_lanes)).sum(1).tolist()
        self._counts = counts
        self._full = [
            bool((of_step[:active] == width).all()) for of_step, active in zip(counts, self._active[:rows], strict=True)
        ]
        all_rows = torch.from_numpy(samples).to(x.device)
        self._rows = all_rows.unbind()
        self._y = y.index_select(0, all_rows.view(-1)).view(all_rows.shape).unbind()
        real = torch.arange(width, device=x.device) < torch.from_numpy(counts).to(x.device)[..., None]
        self._real = real.unbind()
        self._width, self._dtype = width, x.dtype if x.is_floating_point() else torch.get_default_dtype()
        self._last: LaneBatch | None = None

    def at(self, step: int) -> LaneBatch:
        active, row = self._active[step], 0 if self._constant else step
        if self._constant and self._last is not None and self._last.active == active:
            return self._last
        counts = self._counts[row, :active]
        weights: Tensor | float = 1.0 / self._width
        if not self._full[row]:
            per_lane = torch.from_numpy(1.0 / counts).to(self._x.device, self._dtype)
            weights = self._real[row][:active] * per_lane[:, None]
        self._last = LaneBatch(self._x, self._rows[row][:active], self._y[row][:active], weights, counts.tolist())
        return self._last
