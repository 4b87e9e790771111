"""BatchNorm's part of a round on lanes: where its statistics begin, which entries a client keeps to itself, and what
stands behind a vector that it hands over. Without BatchNorm nothing here does anything."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.lanes.backends import LaneGradients
from clients.lanes.packing import Packing
from clients.lanes.statistics import LaneStatistics
from fedopt.algorithms.base import Algorithm
from fedopt.models.batchnorm import BatchNormPolicy
from fedopt.round.batchnorm import OWN, BatchNorms
from fedopt.task import Task
from fedopt.vectors.layout import Vectors


@dataclass(frozen=True)
class Beginning:
    """Where the lanes of a round begin."""

    x: Tensor
    """[Q]; [lanes, Q] where clients replace some of its entries by their own."""
    private: Tensor | None = None
    """Which entries these are, [Q]."""

    def shared(self, rows: Tensor) -> Tensor:
        """The rows without what a client keeps to itself."""
        return rows if self.private is None else rows.masked_fill(self.private, 0.0)

    def own(self, rows: Tensor) -> Tensor:
        """The rows of what a client keeps to itself, without the rest."""
        assert self.private is not None
        return rows.masked_fill(~self.private, 0.0)


class LaneNorms:
    """Divides vectors [P + S] into rows [Q] and statistics [S], and puts them together again."""

    def __init__(self, policy: BatchNormPolicy, task: Task, algorithm: Algorithm, gradients: LaneGradients) -> None:
        self._norms = BatchNorms.of(policy, task.module, algorithm)
        self._packing: Packing = gradients.packing
        found = getattr(gradients, "statistics", None)
        self._statistics: LaneStatistics | None = found
        assert found is not None or not self._norms, "choose_backend leaves such a module to a backend that has some"

    def __bool__(self) -> bool:
        """Whether vectors have statistics."""
        return bool(self._norms)

    def row(self, vector: Tensor) -> Tensor:
        """[Q] of [P + S]."""
        return self._packing.pack(self._norms.trained(vector))

    def rows(self, vectors: Sequence[Tensor]) -> Tensor:
        """[lanes, Q] of [P + S] each."""
        return self._packing.pack_each([self._norms.trained(vector) for vector in vectors])

    def begin(self, x: Tensor, row: Tensor, states: Sequence[Vectors]) -> Beginning:
        """A round from x [P + S], whose row is `row`, of clients with these states: sets the lanes' statistics."""
        if self._statistics is None or not self._norms:
            return Beginning(row)
        if OWN not in states[0]:
            self._statistics.load(self._norms.statistics(x))
            return Beginning(row)
        own = torch.stack([state[OWN] for state in states])
        self._statistics.load(self._norms.statistics(own))
        private = self.row(self._norms.own(x))
        return Beginning(torch.where(private, self.rows(list(own)), row), private)

    def after_steps(self, lanes: int) -> Tensor | None:
        """The statistics that the steps have led to, [lanes, S]."""
        return self._statistics.read(lanes) if self._statistics is not None and self._norms else None

    def unchanged(self) -> AbstractContextManager[None]:
        """For passes that are no steps: afterwards the statistics are what they were."""
        return nullcontext() if self._statistics is None else self._statistics.kept()

    def behind(self, statistics: Tensor | None, name: str) -> Tensor | None:
        """What of the statistics stands behind the vector of this name, when it is handed over."""
        carrier = {"average": self._norms.carrier, "local": OWN}.get(self._norms.policy)
        return statistics if name == carrier else None

    def whole(self, rows: Tensor, statistics: Tensor | None) -> Tensor:
        """[lanes, P + S] of rows [lanes, Q] and these statistics [lanes, S], or zeros."""
        return self._norms.widened(self._packing.unpack(rows), statistics)
