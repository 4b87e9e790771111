"""Losses: of torch.nn.functional by name, and the user's own in the forms that PyTorch code has them in.

A loss is a mean over the batch. It is called with logits [B, classes] and class indices [B] and may be

    a function with a keyword `reduction`, as those of torch.nn.functional
    a module with an attribute `reduction`, as torch.nn.CrossEntropyLoss
    a function that returns the loss of each sample, [B], or their mean
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.errors import InvalidExperiment
from fedopt.imports import CannotImport, load_outside
from fedopt.models import LOSSES
from fedopt.models.behavior import CANNOT_RUN
from fedopt.models.output_losses import OutputLoss, OutputLossName
from fedopt.task import Loss

OF_CLASSES = ("cross_entropy", "nll_loss", "multi_margin_loss")
"""Losses whose targets are class indices alone."""

SAMPLES = 8
"""Samples of the trial batch."""

TOLERANCE = 1e-4
"""Of the comparison of a mean with the mean of its samples' losses; float32 rounds at 1e-7."""


def check_targets(loss: Loss, name: str, y: Tensor) -> None:
    """InvalidExperiment if the loss is for other targets than y: class indices [n] or numbers [n, outputs]."""
    if not y.is_floating_point():
        return
    if loss is F.cross_entropy or name in OF_CLASSES:
        raise InvalidExperiment(
            f"model.loss: {name} takes classes, and the data have numbers to predict; choose mse_loss, l1_loss, kl_div "
            "or binary_cross_entropy_with_logits"
        )
    named = loss.name if isinstance(loss, OutputLoss) else ""
    if named == "binary_cross_entropy_with_logits" and not bool(((y >= 0) & (y <= 1)).all()):
        raise InvalidExperiment(f"model.loss: {name} takes labels from 0 to 1, and the data have others")
    if named == "kl_div" and not (bool((y >= 0).all()) and bool(torch.allclose(y.sum(1), y.new_ones(()), atol=1e-4))):
        raise InvalidExperiment(f"model.loss: {name} takes distributions: rows of shares that add up to 1")


def loss_named(
    name: str, label_smoothing: float = 0.0, class_weights: Sequence[float] = (), numbers: bool = False
) -> Loss:
    """The loss that an experiment means by `name`; smoothing and weights are cross_entropy's. With `numbers`, targets
    are numbers to predict."""
    if name == "cross_entropy" and not label_smoothing and not class_weights:
        return F.cross_entropy
    if name in get_args(OutputLossName):
        return OutputLoss(cast(OutputLossName, name), label_smoothing, tuple(class_weights))
    if not LOSSES.is_outside(name):
        return cast(Loss, LOSSES.load(name))
    try:
        return as_loss(load_outside(name), name, numbers)
    except CannotImport as error:
        raise InvalidExperiment(f"model.loss: {error}") from error


def as_loss(given: object, name: str, numbers: bool = False) -> Loss:
    """A loss in one of the module's forms, with the interface of torch.nn.functional; `name` is for messages. With
    `numbers`, targets are numbers to predict."""
    if given is F.cross_entropy:  # the stacked backend knows this one
        return F.cross_entropy
    known = _of_torch(given) if numbers else None
    if known is not None:
        return OutputLoss(known)
    if isinstance(given, type) and issubclass(given, nn.Module):
        raise InvalidExperiment(f"model.loss: {name} is a class; give an object of it, as {given.__name__}()")
    if not callable(given):
        raise InvalidExperiment(f"model.loss: {name} is {type(given).__name__}, not a function of outputs and targets")
    if isinstance(given, nn.Module) and next(given.parameters(), None) is not None:
        raise InvalidExperiment(f"model.loss: {name} has parameters; make them the model's own, or remove them")
    if isinstance(given, nn.Module) and isinstance(getattr(given, "reduction", None), str):
        return _LossModule(_reducing(given, "mean"), _reducing(given, "none"))
    if _takes_reduction(given):
        return _Reduced(cast(Loss, given))
    return _LossFunction(given)


def _of_torch(given: object) -> OutputLossName | None:
    """The name of a loss of torch that every backend knows, without settings of its own."""
    functions: dict[object, OutputLossName] = {
        F.mse_loss: "mse_loss",
        F.l1_loss: "l1_loss",
        F.binary_cross_entropy_with_logits: "binary_cross_entropy_with_logits",
    }
    kinds: dict[type, OutputLossName] = {
        nn.MSELoss: "mse_loss",
        nn.L1Loss: "l1_loss",
        nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
    }
    settings = (getattr(given, "weight", None), getattr(given, "pos_weight", None))
    if isinstance(given, nn.Module):
        return kinds.get(type(given)) if settings == (None, None) and given.reduction == "mean" else None
    return functions.get(given) if callable(given) else None


def _of_samples(losses: Tensor) -> Tensor:
    """The loss of each sample, [B], where a function gives that of each output, [B, outputs]."""
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


@dataclass(frozen=True)
class _Reduced:
    """A function with a keyword `reduction`."""

    function: Loss

    def __call__(self, outputs: Tensor, targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
        found = self.function(outputs, targets, reduction=reduction)
        return _of_samples(found) if reduction == "none" else found


@dataclass(frozen=True)
class _LossModule:
    mean: nn.Module
    none: nn.Module

    def __call__(self, outputs: Tensor, targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
        if reduction != "none":
            return cast(Tensor, self.mean(outputs, targets))
        return _of_samples(self.none(outputs, targets))


def _reducing(module: nn.Module, reduction: str) -> nn.Module:
    other = copy.deepcopy(module)
    other.reduction = reduction  # type: ignore[assignment]
    return other


@dataclass(frozen=True)
class _LossFunction:
    """A function of outputs and targets that returns the loss of each sample, or their mean."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, outputs: Tensor, targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
        found = self.function(outputs, targets)
        if reduction == "mean":
            return found.mean() if found.ndim else found
        return found if found.ndim else torch.func.vmap(self._of_one)(outputs, targets)

    def _of_one(self, output: Tensor, target: Tensor) -> Tensor:
        return self.function(output[None], target[None])


def _takes_reduction(function: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function without a signature, of a C extension
        return False
    return "reduction" in parameters


def check_loss(loss: Loss, module: nn.Module, x: Tensor, y: Tensor, name: str) -> None:
    """Tries the loss on the module's outputs for a few real samples and targets; InvalidExperiment if it does not fit.

    Training takes means over batches, evaluation sums the losses of samples: the two must agree.
    """
    x, y = x[:SAMPLES], y[:SAMPLES]
    was_training = module.training
    module.eval()  # both calls see the same outputs, whatever the module draws in training
    try:
        outputs = module(x)
        mean, each = loss(outputs, y), loss(outputs, y, reduction="none")
    except CANNOT_RUN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidExperiment(f"model.loss: {name} fails on a trial batch: {reason}") from error
    finally:
        module.train(was_training)
    if not (isinstance(mean, Tensor) and isinstance(each, Tensor)):
        raise InvalidExperiment(f"model.loss: {name} returned {type(mean).__name__}, not a tensor")
    if mean.ndim or each.shape != y.shape[:1]:
        raise InvalidExperiment(
            f"model.loss: {name} turns {len(y)} samples into {tuple((each if not mean.ndim else mean).shape)}; it must "
            "return the loss of each sample, or their mean"
        )
    if not mean.requires_grad:
        raise InvalidExperiment(f"model.loss: {name} cannot be differentiated: it must compute with torch")
    of_samples = each.mean()
    if not torch.allclose(mean, of_samples, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
        raise InvalidExperiment(
            f"model.loss: {name} is {mean.item():.4g} for a batch whose samples' losses have the mean "
            f"{of_samples.item():.4g}, as with class weights or a sum; give a function that returns the loss of each "
            'sample, as F.cross_entropy(outputs, targets, weight, reduction="none") does'
        )
