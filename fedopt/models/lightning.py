"""A LightningModule as the model: its forward pass and its loss are used; local training and logging are fedopt's.

Lightning is not imported here: a process that holds a LightningModule has imported it already.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

LOSSES = ("loss", "criterion", "loss_fn")
"""Attributes that may hold the loss, a function or module of outputs and targets, in the order of search."""

UNUSED = (
    "training_step",
    "configure_optimizers",
    "on_train_batch_start",
    "on_after_backward",
    "on_before_optimizer_step",
)
"""Methods of a LightningModule that change how it is trained, and that fedopt does not call."""


def lightning_class(module: nn.Module) -> type[nn.Module] | None:
    """The class LightningModule, of `lightning` or `pytorch_lightning`, that the module derives from, if it does."""
    for kind in type(module).__mro__:
        if kind.__name__ == "LightningModule" and kind.__module__.startswith(
            ("lightning.pytorch.", "pytorch_lightning.")
        ):
            return kind
    return None


def own_loss(module: nn.Module) -> tuple[str, object] | None:
    """The name and the value of the attribute of a LightningModule that holds its loss, if there is one."""
    if lightning_class(module) is None:
        return None
    for attribute in LOSSES:
        value = getattr(module, attribute, None)
        if callable(value):
            return f"{type(module).__name__}.{attribute}", value
    return None


def lightning_notes(module: nn.Module) -> Iterator[str]:
    """Sentences about what is used of a LightningModule and what is not; none about other modules."""
    base = lightning_class(module)
    if base is None:
        return
    found = own_loss(module)
    kind = type(module).__name__
    if found is None:
        names = f"{', '.join(LOSSES[:-1])} or {LOSSES[-1]}"
        yield f"{kind} has no attribute {names}, so that its loss is model.loss, or cross_entropy"
    unused = [name for name in UNUSED if getattr(type(module), name) is not getattr(base, name)]
    if unused:
        yield f"{', '.join(f'{kind}.{name}' for name in unused)}: not called; [local] says how clients train"
