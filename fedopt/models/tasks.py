"""The task of an experiment: its model with its loss, tried on a few samples."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.models.base import ModelFamily
from fedopt.models.batchnorm import buffers_of
from fedopt.models.behavior import draws_in_training
from fedopt.models.lightning import lightning_notes, own_loss
from fedopt.models.losses import as_loss, check_loss, check_targets, loss_named
from fedopt.models.positions import OfPositions
from fedopt.task import Loss, Task


def make_task(family: ModelFamily, module: nn.Module, x: Tensor, y: Tensor) -> Task:
    """The module, which `family` has built, with its loss; `x` and `y` are real samples [n, ...] and what the family's
    `targets_of` makes of their labels.

    InvalidExperiment if the module or the loss cannot be federated.
    """
    draws = draws_in_training(module, x, family.name, buffers_of(module))
    loss, name = loss_of(family, module, y.is_floating_point())
    check_targets(loss, name, y)
    if y.ndim > 1 and not y.is_floating_point():
        loss = OfPositions(loss)
    if loss is not F.cross_entropy:
        check_loss(loss, module, x, y, name)
    return Task(module, loss, draws)


def loss_of(family: ModelFamily, module: nn.Module, numbers: bool = False) -> tuple[Loss, str]:
    """The loss with its name: model.loss, that of a LightningModule, or cross_entropy; mse_loss for numbers."""
    says_so = family.loss is not None or family.label_smoothing is not None or family.class_weights is not None
    found = None if says_so else own_loss(module)
    if found is not None:
        name, loss = found
        return as_loss(loss, name, numbers), name
    name = family.loss or ("mse_loss" if numbers and not says_so else "cross_entropy")
    return loss_named(name, family.label_smoothing or 0.0, family.class_weights or (), numbers), name


def task_notes(family: ModelFamily, module: nn.Module, numbers: bool = False) -> list[str]:
    """Sentences about the task that the user may not know."""
    notes = list(lightning_notes(module))
    own, (_, used) = own_loss(module), loss_of(family, module, numbers)
    if numbers and family.loss is None and own is None:
        notes.append(f"the targets are numbers to predict, and the loss is {used}")
    return [*notes, f"the loss is {used}"] if own is not None and used == own[0] else notes
