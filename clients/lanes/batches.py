"""Minibatches for lanes: the plans of several clients side by side, gathered step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedopt.data.batches import BatchPlan
from fedopt.optimizers.augmentation import Augmentation


@dataclass(frozen=True)
class Augmented:
    """Draws for the images of a round's minibatches."""

    augmentation: Augmentation
    draws: Sequence[np.ndarray]
    """Of each lane, for every place in its plan: [steps, width, 3]."""


def lane_width(samples: int, batch_size: int | Literal["full"]) -> int:
    """The batch width of a lane where all lanes of a group need the same one: at most a quarter is padding.

    Depends on the client only, so that its result does not depend on the lanes beside it.
    """
    if batch_size != "full" and samples >= batch_size:
        return batch_size
    unit = max(1, (1 << samples.bit_length()) // 8)
    width = -(-samples // unit) * unit
    return width if batch_size == "full" else min(width, batch_size)


class OneHotTargets:
    """One-hot targets of all batches of a round, laid out together when the first batch asks for its own."""

    def __init__(self, targets: Tensor, lanes_of_steps: Sequence[int]) -> None:
        """`targets` are those of all steps, one after the other, [sum of lanes_of_steps, width]."""
        self._targets, self._lanes_of_steps = targets, list(lanes_of_steps)
        self._steps: Sequence[Tensor] | None = None

    def at(self, step: int, classes: int, dtype: torch.dtype) -> Tensor:
        """[active, width, classes]"""
        if self._steps is None:
            table = torch.zeros((*self._targets.shape, classes), dtype=dtype, device=self._targets.device)
            self._steps = torch.split(table.scatter_(2, self._targets[..., None], 1.0), self._lanes_of_steps)
        return self._steps[step]


class LaneBatch:
    """The samples of the active lanes for one step; x is gathered on first use."""

    def __init__(
        self,
        x: Tensor,
        rows: Tensor,
        y: Tensor,
        weights: Tensor | None,
        counts: np.ndarray,
        one_hot: Callable[[int, torch.dtype], Tensor] | None = None,
    ) -> None:
        """`rows` of x, [active * width], are the lanes' samples, y [active, width] or [active, width, outputs] their
        targets.

        `counts` [active] are the numbers of real samples. The loss of a lane is the mean of weights * loss over its
        width: weights [active, width] are width / count for a real sample and 0 for padding, None if all are real.
        `one_hot` gives one-hot targets, [active, width, classes], if a table of them exists for all steps.
        """
        self._x, self._rows = x, rows
        self.y, self.weights, self.counts = y, weights, counts
        self._lay_out = one_hot or functools.partial(OneHotTargets(y, [len(y)]).at, 0)
        self._one_hot: Tensor | None = None
        self._owns_x = False
        self.active, self.width = y.shape[:2]
        self.step = 0
        """The number of the step in its round."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of x."""
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

    def one_hot(self, classes: int, dtype: torch.dtype) -> Tensor:
        """The targets as zeros and ones, [active, width, classes]."""
        if self._one_hot is None:
            self._one_hot = self._lay_out(classes, dtype)
        return self._one_hot

    def augmented(self, augmentation: Augmentation, drawn: Tensor) -> LaneBatch:
        """The batch with its images augmented, by the draws of each row [active * width, 3]."""
        x = augmentation.apply(self._x.index_select(0, self._rows), drawn)
        rows = torch.arange(len(x), device=x.device)
        batch = LaneBatch(x, rows, self.y, self.weights, self.counts, self._lay_out)
        batch._owns_x = True
        return batch

    def own_copy(self, like: Tensor) -> LaneBatch:
        """A batch of the same shape in memory of its own, for `copy_from`; its weights have the dtype of `like`."""
        x = self._x.clone() if self._owns_x else self._x
        copied = LaneBatch(x, self._rows.clone(), self.y.clone(), like.new_ones(self.y.shape[:2]), self.counts)
        copied._one_hot = None if self._one_hot is None else self._one_hot.clone()
        return copied

    def copy_from(self, other: LaneBatch) -> None:
        """Copies another batch of the same shape into this one's memory, except for `counts`."""
        if other._owns_x:
            self._x.copy_(other._x)
        self._rows.copy_(other._rows)
        self.y.copy_(other.y)
        if self._one_hot is not None:
            self._one_hot.copy_(other.one_hot(self._one_hot.shape[2], self._one_hot.dtype))
        assert self.weights is not None
        if other.weights is None:
            self.weights.fill_(1.0)
        else:
            self.weights.copy_(other.weights)

    def lanes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples and targets of each lane, without padding.

        Each lane gets a tensor of its own, aligned by the allocator: the last bit of a product may depend on the
        alignment, and a lane in the middle of a joint tensor could start anywhere.
        """
        rows = self._rows.view(self.active, self.width)
        for lane, (y, count) in enumerate(zip(self.y.unbind(), self.counts.tolist(), strict=True)):
            yield self._x.index_select(0, rows[lane, :count]), y[:count].clone()


class LaneBatches:
    """The minibatches of lanes that are sorted by falling number of steps: the active lanes are always a prefix."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        indices: Sequence[np.ndarray],
        plans: Sequence[BatchPlan],
        dtype: torch.dtype,
        width: int | None = None,
        augmented: Augmented | None = None,
    ) -> None:
        """`indices` are each lane's samples in x and y; `dtype` is that of weights; `width` pads all batches to it."""
        self._x, self._plans = x, plans
        self.samples_of_lanes = [len(own) for own in indices]
        self.steps_of_lanes = [plan.steps for plan in plans]
        self.steps = self.steps_of_lanes[0]
        width = width or max(plan.positions.shape[1] for plan in plans)
        # Full batches are the same at every step, unless the last one is cut: they are laid out and gathered once.
        self._constant = all(
            plan.positions.strides[0] == 0 and plan.steps == self.steps and plan.counts[-1] == plan.counts[0]
            for plan in plans
        )
        rows = 1 if self._constant else self.steps
        self._augmentation = None if augmented is None else augmented.augmentation
        self._draws = () if augmented is None else _laid_out(augmented.draws, self.steps, width, x.device)
        samples = np.zeros((rows, len(plans), width), dtype=np.int64)
        counts = np.zeros((rows, len(plans)), dtype=np.int64)
        for lane, (own, plan) in enumerate(zip(indices, plans, strict=True)):
            positions = plan.positions[:rows]
            samples[: len(positions), lane, : positions.shape[1]] = own[positions]
            counts[: len(positions), lane] = plan.counts[:rows]
        present = counts > 0
        active = present.sum(1)
        partial = np.any((counts < width) & present, axis=1).tolist()
        counts = counts[present]
        flat = torch.from_numpy(samples[present]).view(-1).to(x.device)
        # All steps one after the other, split into single steps.
        self._rows = torch.split(flat, (active * width).tolist())
        targets = y.index_select(0, flat).view(-1, width, *y.shape[1:])
        lanes_of_steps = active.tolist()
        self._y = torch.split(targets, lanes_of_steps)
        self._one_hot = OneHotTargets(targets, lanes_of_steps)
        self._counts, self._ends = counts, np.cumsum(active).tolist()
        self._weights: Sequence[Tensor | None] = [None] * rows
        if any(partial):
            of_samples = (np.arange(width) < counts[:, None]) * (width / counts[:, None])
            weights = torch.split(torch.from_numpy(of_samples).to(x.device, dtype), lanes_of_steps)
            self._weights = [own if is_partial else None for own, is_partial in zip(weights, partial, strict=True)]
        self._last: LaneBatch | None = None

    def at(self, step: int) -> LaneBatch:
        if self._constant and self._last is not None and self._augmentation is None:
            self._last.step = step
            return self._last
        row = 0 if self._constant else step
        y = self._y[row]
        counts = self._counts[self._ends[row] - y.size(0) : self._ends[row]]
        one_hot = functools.partial(self._one_hot.at, row)
        self._last = LaneBatch(self._x, self._rows[row], y, self._weights[row], counts, one_hot)
        if self._augmentation is not None:
            self._last = self._last.augmented(self._augmentation, self._draws[step])
        self._last.step = step
        return self._last

    def first_positions(self, step: int) -> list[int]:
        """Where the first sample of each active lane's batch lies in its client's data."""
        return [int(plan.positions[step, 0]) for plan in self._plans if step < plan.steps]


def _laid_out(draws: Sequence[np.ndarray], steps: int, width: int, device: torch.device) -> Sequence[Tensor]:
    """For each step the draws of the active lanes' rows, [active * width, 3]; those of padding are zeros."""
    table = np.zeros((steps, len(draws), width, 3), dtype=np.int64)
    active = np.zeros(steps, dtype=np.int64)
    for lane, drawn in enumerate(draws):
        table[: len(drawn), lane, : drawn.shape[1]] = drawn
        active[: len(drawn)] += 1
    on_device = torch.from_numpy(table).to(device)
    return [on_device[step, :lanes].reshape(-1, 3) for step, lanes in enumerate(active.tolist())]
