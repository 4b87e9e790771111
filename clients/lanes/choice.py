"""Chooses the backend for a task: the fastest whose gradients were verified against autograd."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from clients.lanes.backends import Backend, lane_gradients
from clients.lanes.verification import why_not_trusted, without_gradient
from clients.stacked.backend import why_not_faster, why_not_stacked
from fedopt.errors import InvalidExperiment
from fedopt.models.batchnorm import keeping_statistics
from fedopt.task import Task
from fedopt.vectors.layout import running_statistics

NO_PROMISE = "; with vmap the last bits depend on how many clients train side by side"


STATISTICS = "BatchNorm's running statistics"


@dataclass(frozen=True)
class Choice:
    """A backend and the reason for it."""

    backend: Backend
    why: str


def choose_backend(
    requested: Backend | Literal["auto"], task: Task, x: Tensor, y: Tensor, decays_weights: bool = False
) -> Choice:
    """The backend for this task. `x` [n, ...] and `y` [n] are real samples and targets, with the dtype and device of
    training; a few are enough.

    Depends on model, loss and device only, never on measured time: two backends round differently, and the same
    experiment must always give the same bits. InvalidExperiment if no backend computes what the module does.
    """
    with keeping_statistics(task.module):
        return _chosen(requested, task, x, y, decays_weights)


def _chosen(requested: Backend | Literal["auto"], task: Task, x: Tensor, y: Tensor, decays_weights: bool) -> Choice:
    if decays_weights:
        _refuse_to_decay_what_is_not_trained(task, x, y)
    if requested == "auto":
        return _automatic(task, x, y)
    if requested != "each" and running_statistics(task.module):
        raise InvalidExperiment(f"run.backend: {requested} does not carry {STATISTICS}; choose auto")
    obstacle = why_not_stacked(task, x[:1]) if requested == "stacked" else None
    if obstacle is not None:
        raise InvalidExperiment(f"run.backend: stacked does not know this model: {obstacle}; choose auto")
    obstacle = _distrust(requested, task, x, y)
    if obstacle is None:
        return Choice(requested, "run.backend says so" + (NO_PROMISE if requested == "vmap" else ""))
    if requested == "each":
        raise _no_backend(obstacle)
    raise InvalidExperiment(f"run.backend: {requested} does not compute what this model does: {obstacle}; choose auto")


def _automatic(task: Task, x: Tensor, y: Tensor) -> Choice:
    carried = f"the others do not carry {STATISTICS}" if running_statistics(task.module) else None
    obstacle = (
        carried or why_not_stacked(task, x[:1]) or why_not_faster(task, x[:1]) or _distrust("stacked", task, x, y)
    )
    if obstacle is None:
        return Choice("stacked", "all layers supported")
    if x.device.type != "cpu" and carried is None:
        against_vmap = "it draws random numbers" if task.draws else _distrust("vmap", task, x, y)
        if against_vmap is None:
            return Choice("vmap", obstacle + NO_PROMISE)
        obstacle = f"{obstacle}, and not vmap: {against_vmap}"
    against_each = _distrust("each", task, x, y)
    if against_each is not None:
        raise _no_backend(against_each)
    return Choice("each", obstacle)


def _distrust(backend: Backend, task: Task, x: Tensor, y: Tensor) -> str | None:
    return why_not_trusted(functools.partial(lane_gradients, backend), task, x, y)


def _refuse_to_decay_what_is_not_trained(task: Task, x: Tensor, y: Tensor) -> None:
    """torch.optim skips a parameter without a gradient; on lanes its weights would decay with the others."""
    unused = without_gradient(task, x, y)
    if unused:
        raise InvalidExperiment(
            f"local.weight_decay: the model's {unused[0]} takes no part in the loss of a trial batch, and would only "
            "shrink; set its requires_grad to False in the model, or weight_decay to 0"
        )


def _no_backend(obstacle: str) -> InvalidExperiment:
    return InvalidExperiment(
        f"model.name: a copy of this model does not compute what the model does: {obstacle}; its forward pass and its "
        "hooks must use the parameters of their own module, not of another object"
    )
