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

    def __init__(
        self,
        x: Tensor,
        rows: Tensor,
        y: Tensor,
        weights: Tensor | None,
        counts: np.ndarray,
        one_hot: Tensor | None = None,
    ) -> None:
        """`rows` of x, [active * width], belong to the lanes, with targets y [active, width]; `counts` are real.

        The mean loss of a lane is the mean of weights * loss over its width: width / count for a real sample and 0 for
        padding, [active, width]; None where every sample is real. `one_hot` are the targets once more, [active, width,
        classes], where they were asked for.
        """
        self._x, self._rows = x, rows
        self.y, self.weights, self.counts, self.one_hot = y, weights, counts, one_hot
        self.active, self.width = y.shape
        self.step = 0
        """Which of the round's steps it is for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """That of x."""
        return (self.active, self.width, *self._x.shape[1:])

    @cached_property
    def x(self) -> Tensor:
        """[active, width, ...]"""
        return self._x.index_select(0, self._rows).view(self.shape)

    @property
    def first_sample(self) -> Tensor:
        """[1, ...]"""
        return self._x.index_select(0, self._rows[:1])

    def gather(self, out: Tensor) -> None:
        """Writes x to `out`, [active * width, ...]."""
        torch.index_select(self._x, 0, self._rows, out=out)

    def in_a_place_of_its_own(self, like: Tensor) -> LaneBatch:
        """One of the same shape that others may take the place of; every sample has a weight, of the type of `like`."""
        weights = like.new_ones(self.y.shape)
        one_hot = None if self.one_hot is None else self.one_hot.clone()
        return LaneBatch(self._x, self._rows.clone(), self.y.clone(), weights, self.counts, one_hot)

    def take_over(self, other: LaneBatch) -> None:
        """Puts another of the same shape here; `counts` stay what they were."""
        self._rows.copy_(other._rows)
        self.y.copy_(other.y)
        if self.one_hot is not None:
            assert other.one_hot is not None
            self.one_hot.copy_(other.one_hot)
        assert self.weights is not None
        if other.weights is None:
            self.weights.fill_(1.0)
        else:
            self.weights.copy_(other.weights)

    def lanes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each lane's own samples, without padding.

        Each lane has a tensor of its own, which begins where the allocator aligns it: the last bit of a product may
        depend on that, and a lane in the middle of a joint tensor would begin anywhere.
        """
        rows = self._rows.view(self.active, self.width)
        for lane, (y, count) in enumerate(zip(self.y.unbind(), self.counts.tolist(), strict=True)):
            yield self._x.index_select(0, rows[lane, :count]), y[:count].clone()


class LaneBatches:
    """The minibatches of lanes sorted by falling steps, so that the active ones are always a prefix."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        indices: Sequence[np.ndarray],
        plans: Sequence[BatchPlan],
        dtype: torch.dtype,
        width: int | None = None,
        classes: int | None = None,
    ) -> None:
        """`indices` are each lane's samples in x and y; `dtype` is that of weights; `width` pads all batches to one.

        With `classes`, targets are numbers below it, and are laid out as so many zeros and ones, too.
        """
        self._x = x
        self.steps_of_lanes = [plan.steps for plan in plans]
        self.steps = self.steps_of_lanes[0]
        width = width or max(plan.positions.shape[1] for plan in plans)
        # Full batches are the same at every step, unless the last is cut: they are laid out, and gathered, once.
        self._constant = all(
            plan.positions.strides[0] == 0 and plan.steps == self.steps and plan.counts[-1] == plan.counts[0]
            for plan in plans
        )
        rows = 1 if self._constant else self.steps
        samples = np.zeros((rows, len(plans), width), dtype=np.int64)
        counts = np.zeros((rows, len(plans)), dtype=np.int64)
        for lane, (own, plan) in enumerate(zip(indices, plans, strict=True)):
            positions = plan.positions[:rows]
            samples[: len(positions), lane, : positions.shape[1]] = own[positions]
            counts[: len(positions), lane] = plan.counts[:rows]
        there = counts > 0
        active = there.sum(1)
        partial = np.any((counts < width) & there, axis=1).tolist()
        counts = counts[there]
        flat = torch.from_numpy(samples[there]).view(-1).to(x.device)
        # One after the other for all steps, cut into those of each.
        self._rows = torch.split(flat, (active * width).tolist())
        targets = y.index_select(0, flat).view(-1, width)
        lanes_of_steps = active.tolist()
        self._y = torch.split(targets, lanes_of_steps)
        self._one_hot: Sequence[Tensor | None] = [None] * rows
        if classes is not None:
            table = torch.zeros((*targets.shape, classes), dtype=dtype, device=x.device)
            self._one_hot = torch.split(table.scatter_(2, targets[..., None], 1.0), lanes_of_steps)
        self._counts, self._ends = counts, np.cumsum(active).tolist()
        self._weights: Sequence[Tensor | None] = [None] * rows
        if any(partial):
            of_samples = (np.arange(width) < counts[:, None]) * (width / counts[:, None])
            weights = torch.split(torch.from_numpy(of_samples).to(x.device, dtype), lanes_of_steps)
            self._weights = [own if is_partial else None for own, is_partial in zip(weights, partial, strict=True)]
        self._last: LaneBatch | None = None

    def at(self, step: int) -> LaneBatch:
        if self._constant and self._last is not None:
            self._last.step = step
            return self._last
        row = 0 if self._constant else step
        y = self._y[row]
        counts = self._counts[self._ends[row] - y.size(0) : self._ends[row]]
        self._last = LaneBatch(self._x, self._rows[row], y, self._weights[row], counts, self._one_hot[row])
        self._last.step = step
        return self._last
