"""A step recorded once and replayed: what a GPU is asked for then costs one call, whatever the step is made of.

A recording reads and writes the memory that it was made on, so everything that changes from step to step must be put
where it was: the minibatch here, what an algorithm begins a round with by `clients.lanes.steps`; the rest never moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clients.lanes.backends import LaneGradients
from clients.lanes.batches import LaneBatch

Record = Callable[[Callable[[], None]], Callable[[], object]]
"""Makes of a piece of work something that does it again, on the same memory. The work itself is not done."""

LIMIT = 256
"""How many shapes of batches stay recorded."""


class CudaGraphs:
    """Records by CUDA graphs. Implements `Record`."""

    def __init__(self) -> None:
        # What recordings need for themselves may lie in the same place: they are replayed one after the other, and
        # nothing in there is read afterwards.
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        return graph.replay


class Recordings:
    """A step on lanes, recorded for each shape of batches that comes a second time.

    The first time it is taken as it is: libraries then load, and buffers are laid out, outside of a recording.
    """

    def __init__(self, record: Record, gradients: LaneGradients) -> None:
        self._record, self._gradients = record, gradients
        self._seen: set[tuple[int, ...]] = set()
        self._recordings: dict[tuple[int, ...], tuple[LaneBatch, Callable[[], object], object]] = {}

    def step(self, batch: LaneBatch, step: Callable[[LaneBatch], None]) -> None:
        """Does what `step` does, which must work on the same memory for every batch of that shape."""

        def take(batch: LaneBatch) -> None:
            step(batch)
            self._gradients.settle()

        if batch.shape not in self._seen:
            self._seen.add(batch.shape)
            take(batch)
            return
        if batch.shape not in self._recordings:
            if len(self._recordings) == LIMIT:
                del self._recordings[next(iter(self._recordings))]
            place = batch.in_a_place_of_its_own(self._gradients.theta)
            replay = self._record(lambda: take(place))
            # What it works in must not be given back while it lives.
            self._recordings[batch.shape] = place, replay, (step, self._gradients.holds())
        place, replay, _ = self._recordings[batch.shape]
        place.take_over(batch)
        replay()
