"""A step is recorded once and replayed: a GPU then launches all its kernels with one call.

A recording reads and writes the memory that it was made with, so everything that changes from step to step must be
copied there: the minibatch by this file, the algorithm's vectors by `clients.lanes.steps`. Nothing else moves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from clients.lanes.backends import DefersLosses, LaneGradients
from clients.lanes.batches import LaneBatch

Record = Callable[[Callable[[], None]], Callable[[], object]]
"""Records some work without doing it, and returns what replays it on the same memory."""

LIMIT = 256
"""The most shapes of batches that stay recorded."""


class CudaGraphs:
    """Records with CUDA graphs. Implements `Record`."""

    def __init__(self) -> None:
        # Recordings may share their temporary memory: they are replayed one after the other, and nothing reads it
        # afterwards.
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        return graph.replay


class Recordings:
    """A step on lanes, recorded for each shape of batches when that shape comes a second time.

    The first time the step is taken without recording, so that libraries load and buffers are allocated before.
    """

    def __init__(self, record: Record, gradients: LaneGradients) -> None:
        self._record, self._gradients = record, gradients
        self._deferred = gradients if isinstance(gradients, DefersLosses) else None
        self._seen: dict[tuple[int, ...], LaneBatch] = {}
        """A batch in memory of its own for each shape that came once."""
        self._recordings: dict[tuple[int, ...], tuple[LaneBatch, Callable[[], object], object]] = {}

    def step(self, batch: LaneBatch, step: Callable[[LaneBatch], None]) -> None:
        """Does what `step` does. `step` must use the same memory for every batch of one shape."""

        def take(batch: LaneBatch) -> None:
            step(batch)
            if self._deferred is not None:
                self._deferred.flush_losses()

        recording = self._recordings.get(batch.shape)
        if recording is None:
            own = self._seen.pop(batch.shape, None)
            if own is None:
                take(batch)
                self._seen[batch.shape] = batch.own_copy(self._gradients.theta)
                return
            if len(self._recordings) == LIMIT:
                del self._recordings[next(iter(self._recordings))]
            replay = self._record(functools.partial(take, own))
            # The buffers must stay allocated as long as the recording.
            buffers = None if self._deferred is None else self._deferred.buffers()
            recording = self._recordings[batch.shape] = own, replay, (step, buffers)
        memory, replay, _ = recording
        memory.copy_from(batch)
        replay()
