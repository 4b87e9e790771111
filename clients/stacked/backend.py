"""The stacked backend: gradients of all lanes at once by the rules of the layers, added directly to their targets."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.lanes.batches import LaneBatch
from clients.lanes.draws import LaneDraws
from clients.lanes.losses import LossSums
from clients.lanes.packing import Packing
from clients.lanes.storage import Scratch
from clients.stacked.convolution import Conv2dRule
from clients.stacked.loss import CrossEntropy
from clients.stacked.output_loss import StackedOutputLoss
from clients.stacked.prepared import PreparedPass
from clients.stacked.recognize import recognize
from clients.stacked.rule import NotStackable
from clients.stacked.sam import MakeLoss, PerturbedPass, perturbation_pays
from fedopt.models.output_losses import OutputLoss
from fedopt.task import Loss, Task
from fedopt.vectors.layout import Layout

HEAVY = 2e6
"""From so many multiplications in convolutions a sample, arithmetic dominates on a CPU, and the blocked kernels that
autograd calls are faster (measured, batch 10: at 0.3 million this backend is 1.6 times as fast, at 9 million half)."""

SHAPES = 256
"""The most shapes of batches that stay prepared. A round has as many as there are lanes, times a few widths."""


def why_not_stacked(task: Task, sample: Tensor) -> str | None:
    """Why this backend cannot train the task, as a clause; None if it can. `sample` is one input [1, ...]."""
    try:
        _convolution_products(task, sample)
    except NotStackable as error:
        return str(error)
    return None


def why_not_faster(task: Task, sample: Tensor) -> str | None:
    """Why another backend is faster, as a clause; None if this one is."""
    heavy = _convolution_products(task, sample)
    if sample.device.type == "cpu" and heavy > HEAVY:
        return f"its convolutions are {heavy / 1e6:.1f} million products a sample, which autograd's kernels do faster"
    return None


def _convolution_products(task: Task, sample: Tensor) -> int:
    like = next(p for p in task.module.parameters() if p.requires_grad).detach()
    return StackedLanes(task, Layout.of(task.module), like, 1).try_out(sample)


def _loss_rule(loss: Loss) -> MakeLoss:
    if loss is F.cross_entropy:
        return CrossEntropy
    if isinstance(loss, OutputLoss):
        return functools.partial(StackedOutputLoss, loss)
    raise NotStackable("its loss has no rule")


class StackedLanes:
    """Implements `LaneGradients`, `PerturbsInPlace` and `DefersLosses` of `clients.lanes.backends`."""

    def __init__(self, task: Task, layout: Layout, like: Tensor, lanes: int, draws: LaneDraws | None = None) -> None:
        """NotStackable if the task has a part without a rule."""
        if task.draws or draws is not None:
            raise NotStackable("it draws random numbers in training")
        self._make_loss = _loss_rule(task.loss)
        if any(parameter.dtype != like.dtype for parameter in task.module.parameters()):
            raise NotStackable("its parameters are of several types")
        self._steps = recognize(task.module, layout)
        for step in self._steps:
            step.rule.bind(Scratch(like))
        self._scratch, self._scratch_of_loss = Scratch(like), Scratch(like)
        self.packing = Packing(layout, like)
        self.theta = like.new_zeros(lanes, self.packing.width)
        self._gradients = torch.zeros_like(self.theta)
        self._losses = LossSums(lanes, like)
        self._prepared: dict[tuple[int, ...], PreparedPass] = {}
        self._perturbed_scratch = [Scratch(like) for _ in (*self._steps, "loss")]
        self._perturbed: dict[PreparedPass, PerturbedPass | None] = {}
        self._pass: PreparedPass | None = None
        self._active = self._width = 0
        self._gathered: LaneBatch | None = None

    def __call__(self, batch: LaneBatch, counts: bool = True) -> Tensor:
        self.accumulate(batch, self._gradients, 0.0, 1.0, counts)
        return self._gradients[: batch.active]

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, counts: bool = True) -> None:
        prepared = self._gather(batch)
        prepared.run(batch, prepared.target(into, keep, scale / batch.width), counts)

    def perturbed(self, batch: LaneBatch) -> PerturbedPass | None:
        prepared = self._gather(batch)
        if prepared not in self._perturbed:
            self._perturbed[prepared] = (
                PerturbedPass(
                    prepared,
                    self._steps,
                    self.packing,
                    self.theta[: batch.active],
                    self._perturbed_scratch,
                    self._make_loss,
                )
                if perturbation_pays(prepared)
                else None
            )
        return self._perturbed[prepared]

    def flush_losses(self) -> None:
        if self._pass is not None:
            self._pass.loss.flush()

    def buffers(self) -> object:
        return self._pass, None if self._pass is None else self._perturbed.get(self._pass)

    def losses(self) -> Tensor:
        self.flush_losses()
        return self._losses.take()

    def try_out(self, sample: Tensor) -> int:
        """Multiplications in convolutions for this sample. NotStackable if the rules do not fit its shape."""
        try:
            rules = self._switch_to((1, *sample.shape)).rules
        except (RuntimeError, ValueError, IndexError) as error:
            raise NotStackable(f"samples of shape {tuple(sample.shape[1:])} do not fit its rules") from error
        return sum(rule.products for rule in rules if isinstance(rule, Conv2dRule))

    def _gather(self, batch: LaneBatch) -> PreparedPass:
        """The pass for batches of this shape, with this batch gathered as its input."""
        prepared = self._pass
        if prepared is None or batch.active != self._active or batch.width != self._width:
            prepared = self._switch_to(batch.shape)
        if batch is not self._gathered:
            prepared.gather(batch)
            self._gathered = batch
        return prepared

    def _switch_to(self, shape: tuple[int, ...]) -> PreparedPass:
        """The pass for batches of this shape, which share buffers with those of other shapes."""
        self.flush_losses()
        prepared = self._prepared.get(shape)
        if prepared is None:
            if len(self._prepared) == SHAPES:
                self._perturbed.pop(self._prepared.pop(next(iter(self._prepared))), None)
            loss = self._make_loss(self._scratch_of_loss, self._losses.sums)
            x, theta = self._scratch("x", shape[0], shape[1:]), self.theta[: shape[0]]
            prepared = self._prepared[shape] = PreparedPass(self._steps, x, self.packing, theta, loss)
        self._pass, self._gathered = prepared, None
        self._active, self._width = shape[:2]
        return prepared
