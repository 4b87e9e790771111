"""The curvature of a client's minibatch loss, on the module itself: the same for every backend."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from torch import Tensor
from torch.func import functional_call, grad, jacrev

from clients.lanes.batches import LaneBatch
from clients.lanes.kronecker import KroneckerFactors
from fedopt.algorithms.base import Algorithm
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.base import Optimizer
from fedopt.task import Task
from fedopt.vectors.layout import RowLayout, Vectors, running_statistics

ROWS = 64
"""Rows of a Hessian that are computed side by side: beyond that a pass waits for memory."""


class Curvature:
    """Of one lane at a time, without the gaps of its row."""

    def __init__(self, task: Task, packing: RowLayout, algorithm: Algorithm, l2: float = 0.0) -> None:
        """`l2` is the factor of the penalty l2 / 2 |y|^2."""
        self._task, self._packing, self._algorithm, self._l2 = task, packing, algorithm, l2
        self._factors: KroneckerFactors | None = None

    def prepare(self, optimizer: Optimizer) -> None:
        """InvalidExperiment if the curvature that the optimizer asks for does not fit the task or the algorithm."""
        asks = optimizer.needs_hessian or optimizer.needs_kronecker
        if asks and self._task.draws:
            told = f"local.optimizer: {optimizer.name} needs the same loss twice"
            raise InvalidExperiment(f"{told}, and the model draws random numbers; choose another model or optimizer")
        if asks and running_statistics(self._task.module):
            told = f"local.optimizer: {optimizer.name} needs the curvature of the loss of each sample"
            raise InvalidExperiment(f"{told}, which BatchNorm mixes; choose another model or optimizer")
        if optimizer.needs_kronecker:
            self._factors = KroneckerFactors(self._task, self._packing.layout)
        if optimizer.needs_hessian and self._algorithm.evaluates_elsewhere:
            name = self._algorithm.name
            raise InvalidExperiment(
                f"local.optimizer: steps of {name} follow gradients at several points, of no Hessian"
            )

    def kronecker_inverse(
        self, theta: Tensor, batch: LaneBatch, lane: int, damping: float
    ) -> Callable[[Tensor], Tensor]:
        """v [P] -> (F + damping I)^-1 v, of the loss on the lane's minibatch, for a row theta [Q]."""
        assert self._factors is not None
        x, y = next(islice(batch.lanes(), lane, None))
        return self._factors.inverse(self._packing.unpack(theta), x, y, damping)

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
