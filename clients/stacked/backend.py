"""The stacked backend: gradients of all lanes at once by the rules of the layers, added straight where they belong."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.lanes.batches import LaneBatch
from clients.lanes.draws import LaneDraws
from clients.lanes.losses import LossSums
from clients.lanes.packing import Packing
from clients.lanes.storage import Scratch
from clients.stacked.circuit import Circuit
from clients.stacked.convolution import Conv2dRule
from clients.stacked.linear import LinearRule
from clients.stacked.loss import CrossEntropy
from clients.stacked.recognise import recognise
from clients.stacked.rule import NotStackable
from clients.stacked.uphill import Uphill, goes_uphill
from fedopt.task import Task
from fedopt.vectors.layout import Layout

HEAVY = 2e6
"""Multiplications in convolutions, a sample, from which on arithmetic is all that counts on a CPU, and the blocked
kernels that autograd calls do it faster (measured, batch 10: 0.3 million 1.6 times faster here, 9 million half as
fast)."""

CIRCUITS = 256
"""How many shapes of batches stay laid out; those of a round are as many as there are lanes, times a few widths."""

FEW_CLASSES = 64
"""Classes up to which a subtraction of zeros and ones beats finding the one number to change."""


def why_not_stacked(task: Task, sample: Tensor) -> str | None:
    """What keeps the task from this backend, as a clause; None if nothing does. `sample` is one input [1, ...]."""
    try:
        _convolution_products(task, sample)
    except NotStackable as error:
        return str(error)
    return None


def why_not_faster(task: Task, sample: Tensor) -> str | None:
    """Why a task that could take this backend had better not, as a clause; None if it had."""
    heavy = _convolution_products(task, sample)
    if sample.device.type == "cpu" and heavy > HEAVY:
        return f"its convolutions are {heavy / 1e6:.1f} million products a sample, which autograd's kernels do faster"
    return None


def _convolution_products(task: Task, sample: Tensor) -> int:
    like = next(p for p in task.module.parameters() if p.requires_grad).detach()
    return StackedLanes(task, Layout.of(task.module), like, 1).try_out(sample)


class StackedLanes:
    """Implements `clients.lanes.backends.LaneGradients`."""

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int, draws: LaneDraws | None = None) -> None:
        """NotStackable if the task is not made of what this backend knows."""
        if task.draws or draws is not None:
            raise NotStackable("it draws random numbers in training")
        if task.loss is not F.cross_entropy:
            raise NotStackable("its loss is not cross_entropy")
        if any(parameter.dtype != like.dtype for parameter in task.module.parameters()):
            raise NotStackable("its parameters are of several types")
        self._steps = recognise(task.module, layout)
        for step in self._steps:
            step.rule.bind(Scratch(like))
        self._scratch, self._scratch_of_loss = Scratch(like), Scratch(like)
        last = self._steps[-1].rule
        self.classes = last.outputs if isinstance(last, LinearRule) and last.outputs <= FEW_CLASSES else None
        self.packing = Packing(layout, like)
        self.theta = like.new_zeros(lanes, self.packing.width)
        self._gradients = torch.zeros_like(self.theta)
        self._losses = LossSums(lanes, like)
        self._circuits: dict[tuple[int, ...], Circuit] = {}
        self._scratch_uphill = [Scratch(like) for _ in (*self._steps, "loss")]
        self._uphill: dict[Circuit, Uphill | None] = {}
        self._circuit: Circuit | None = None
        self._active = self._width = 0
        self._gathered: LaneBatch | None = None

    def __call__(self, batch: LaneBatch, counts: bool = True) -> Tensor:
        self.accumulate(batch, self._gradients, 0.0, 1.0, counts)
        return self._gradients[: batch.active]

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, counts: bool = True) -> None:
        circuit = self._gather(batch)
        circuit.run(batch, circuit.into(into, keep, scale / batch.width), counts)

    def uphill(self, batch: LaneBatch) -> Uphill | None:
        circuit = self._gather(batch)
        if circuit not in self._uphill:
            *scratches, of_loss = self._scratch_uphill
            theta = self.theta[: batch.active]
            goes = goes_uphill(circuit)
            way = Uphill(circuit, self._steps, self.packing, theta, scratches, of_loss) if goes else None
            self._uphill[circuit] = way
        return self._uphill[circuit]

    def settle(self) -> None:
        if self._circuit is not None:
            self._circuit.loss.settle()

    def holds(self) -> object:
        return self._circuit, None if self._circuit is None else self._uphill.get(self._circuit)

    def losses(self) -> Tensor:
        self.settle()
        return self._losses.take()

    def try_out(self, sample: Tensor) -> int:
        """Multiplications in convolutions for this sample; NotStackable if the rules do not fit its kind."""
        try:
            rules = self._turn_to((1, *sample.shape)).rules
        except (RuntimeError, ValueError, IndexError) as error:
            raise NotStackable(f"samples of shape {tuple(sample.shape[1:])} do not fit its rules") from error
        return sum(rule.products for rule in rules if isinstance(rule, Conv2dRule))

    def _gather(self, batch: LaneBatch) -> Circuit:
        """The circuit for batches like this one, which is in its place."""
        circuit = self._circuit
        if circuit is None or batch.active != self._active or batch.width != self._width:
            circuit = self._turn_to(batch.shape)
        if batch is not self._gathered:
            circuit.gather(batch)
            self._gathered = batch
        return circuit

    def _turn_to(self, shape: tuple[int, ...]) -> Circuit:
        """The circuit for batches of this shape, in place of that of another."""
        if self._circuit is not None:
            self._circuit.loss.settle()
        circuit = self._circuits.get(shape)
        if circuit is None:
            if len(self._circuits) == CIRCUITS:
                self._uphill.pop(self._circuits.pop(next(iter(self._circuits))), None)
            loss = CrossEntropy(self._scratch_of_loss, self._losses.sums)
            x, theta = self._scratch("x", shape[0], shape[1:]), self.theta[: shape[0]]
            circuit = self._circuits[shape] = Circuit(self._steps, x, self.packing, theta, loss)
        self._circuit, self._gathered = circuit, None
        self._active, self._width = shape[:2]
        return circuit
