"""Losses at many points, evaluated in as many threads as there are cores.

Threads, as torch works without Python's lock, and processes would take seconds to start. Measured with two of either on
two cores that others use as well: 800 points of the MLP on digits take 3.2 s by threads and 4.5 s by processes, 24
points of the small CNN 4.4 to 5.6 s and 5.6 to 6.8 s. Each thread computes whole points with one thread of torch, so a
point's losses are the same numbers whatever is computed beside it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import torch
from torch import Tensor

from fedopt.device import threads
from simulations.analysis.runs.objective import Objective

MOST_BLOCKS = 1000
"""In which points are handed to the threads, about."""
TRIAL = 0.3
"""Seconds in which the time of the losses is measured, at least."""

Losses = dict[str, list[float]]
"""By whose loss it is, in the order of the points."""


@dataclass(frozen=True)
class PointSet:
    """The points base + sum_j coordinates[i, j] directions[j], which are made when they are needed."""

    base: Tensor
    """[P] in float64."""
    directions: Tensor
    """[D, P]."""
    coordinates: Tensor
    """[n, D]."""

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for tensor in (self.base, self.directions, self.coordinates):
            digest.update(f"{tuple(tensor.shape)}|".encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __getitem__(self, place: int) -> Tensor:
        return self.base + self.coordinates[place] @ self.directions


class Evaluation:
    """Objectives at points, in float64 or float32."""

    def __init__(self, objectives: Mapping[str, Objective], dtype: torch.dtype, threads: int | None = None) -> None:
        self._threads = threads or cores()
        self._idle: SimpleQueue[dict[str, Objective]] = SimpleQueue()
        """The twins that no thread uses."""
        for _ in range(self._threads):
            objectives = {name: objective.twin(dtype) for name, objective in objectives.items()}
            self._idle.put(objectives)

    def seconds(self, point: Tensor, names: Sequence[str]) -> dict[str, float]:
        """How long each of these losses takes while all threads work, divided by the threads' number."""
        with _pool(self._threads) as pool:
            found = list(pool.map(self._timed, *zip(*[(point, names)] * self._threads, strict=True)))
        return {name: sum(one[name] for one in found) / self._threads**2 for name in names}

    def at(self, points: PointSet, names: Sequence[str], done: Callable[[int], None]) -> Losses:
        """The losses of these names; `done` is called with how many further points were evaluated."""
        losses = {name: [0.0] * len(points) for name in names}
        size = 1 + len(points) // MOST_BLOCKS
        blocks = [range(first, min(first + size, len(points))) for first in range(0, len(points), size)]
        with _pool(self._threads) as pool:
            futures = {pool.submit(self._values, points, block, names): block for block in blocks}
            for future in as_completed(futures):
                block = futures[future]
                for name, values in zip(names, future.result(), strict=True):
                    losses[name][block.start : block.stop] = values
                done(len(block))
        return losses

    def _values(self, points: PointSet, block: range, names: Sequence[str]) -> list[list[float]]:
        twins = self._idle.get()
        try:
            found = [[twins[name].value(point) for name in names] for point in (points[place] for place in block)]
        finally:
            self._idle.put(twins)
        return [list(of_one) for of_one in zip(*found, strict=True)]

    def _timed(self, point: Tensor, names: Sequence[str]) -> dict[str, float]:
        twins = self._idle.get()
        try:
            for name in names:  # the first call prepares kernels
                twins[name].value(point)
            spent, rounds, start = dict.fromkeys(names, 0.0), 0, time.perf_counter()
            while rounds == 0 or time.perf_counter() - start < TRIAL:
                for name in names:
                    before = time.perf_counter()
                    twins[name].value(point)
                    spent[name] += time.perf_counter() - before
                rounds += 1
        finally:
            self._idle.put(twins)
        return {name: seconds / rounds for name, seconds in spent.items()}


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose torch operations use one thread each."""
    with threads(1), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool
        except BaseException:  # also where the user stops it
            pool.shutdown(cancel_futures=True)
            raise
