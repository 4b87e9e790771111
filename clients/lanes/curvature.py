"""The Hessian of a client's minibatch loss, by torch.func on the module: the same for every backend."""

from __future__ import annotations

from itertools import islice

from torch import Tensor
from torch.func import functional_call, grad, jacrev

from clients.lanes.batches import LaneBatch
from fedopt.algorithms.base import Algorithm
from fedopt.errors import InvalidExperiment
from fedopt.task import Task
from fedopt.vectors.layout import RowLayout, Vectors

ROWS = 64
"""Rows of a Hessian that are computed side by side: beyond that a pass waits for memory."""


class Curvature:
    """Of one lane at a time, without the gaps of its row."""

    def __init__(self, task: Task, packing: RowLayout, algorithm: Algorithm, l2: float = 0.0) -> None:
        """`l2` is the factor of the penalty l2 / 2 |y|^2."""
        self._task, self._packing, self._algorithm, self._l2 = task, packing, algorithm, l2

    def check(self) -> None:
        """InvalidExperiment if no Hessian fits the task or the algorithm."""
        if self._task.draws:
            raise InvalidExperiment("local.optimizer: a model that draws random numbers has no Hessian here")
        if self._algorithm.evaluates_elsewhere:
            name = self._algorithm.name
            raise InvalidExperiment(
                f"local.optimizer: steps of {name} follow gradients at several points, of no Hessian"
            )

    def hessian(self, theta: Tensor, batch: LaneBatch, lane: int) -> Tensor:
        """[P, P], of the loss on the lane's minibatch, for a row theta [Q]."""
        x, y = next(islice(batch.lanes(), lane, None))

        def loss(flat: Tensor) -> Tensor:
            outputs = functional_call(self._task.module, self._packing.layout.split(flat), (x,))
            return self._task.loss(outputs, y)

        found: Tensor = jacrev(grad(loss), chunk_size=ROWS)(self._packing.unpack(theta)).detach()
        found.diagonal().add_(self._l2)
        return found

    def corrected(self, hessian: Tensor, gradient: Tensor, theta: Tensor, local: Vectors) -> Tensor:
        """The derivative of the corrected gradient, [P, P], from that of the raw one, `gradient` [Q]. `local` are the
        algorithm's vectors of this lane, [Q] or [1, Q] each."""
        at, raw = self._packing.unpack(theta), self._packing.unpack(gradient)

        def correct(flat: Tensor) -> Tensor:
            moved = self._packing.pack((raw + hessian @ (flat - at))[None])
            return self._packing.unpack(self._algorithm.correct(moved, self._packing.pack(flat[None]), local))[0]

        found: Tensor = jacrev(correct, chunk_size=ROWS)(at)
        return found.detach()
