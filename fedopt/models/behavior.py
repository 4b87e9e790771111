"""Side effects and randomness of a module, found by running it and not by its class.

A federated model must compute the same output for the same input. Otherwise results depend on the order in which
clients are trained, and a saved model does not reach the scores of its run. Two outcomes are distinguished:

    draws    in training its output depends on random numbers (dropout); engines then key these numbers
    refused  it writes buffers or frozen parameters, remembers earlier calls, or draws in evaluation too
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.seeding import Purpose, isolated

SAMPLES = 8
"""Samples in the trial batch."""

CANNOT_RUN = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError)
"""Errors of a forward pass on unsuitable input. (NotImplementedError is a RuntimeError.)"""


def draws_in_training(module: nn.Module, samples: Tensor, name: str, batch_norm: Collection[str] = ()) -> bool:
    """Whether the module's output in train mode depends on random numbers.

    `samples` are real inputs, [n, *shape] with n >= 1, on the module's device; `name` is the model's in messages.
    `batch_norm` are names of buffers that it may write: those of its BatchNorm layers, where the experiment says what
    becomes of them. InvalidExperiment if the module cannot be federated. The module is not changed, and ends in train
    mode.
    """
    module.train()
    x = samples[: min(SAMPLES, len(samples))]
    try:
        trial = copy.deepcopy(module)
    except CANNOT_RUN as error:
        raise InvalidExperiment(f"model.name: {name} cannot be copied: {_first_line(error)}") from error
    before = {key: tensor.detach().clone() for key, tensor in _state(trial).items()}
    first = _outputs(trial, x, name, draw=0)
    same_draws = _outputs(trial, x, name, draw=0)
    other_draws = _outputs(trial, x, name, draw=1)
    if not batch_norm:  # which may not be able to take one sample
        _outputs(trial, x[:1], name, draw=0)
    state = {key: tensor for key, tensor in _state(trial).items() if key not in batch_norm}
    written = [key for key, tensor in state.items() if not _equal(tensor, before[key])]
    if written:
        raise InvalidExperiment(
            f"model.name: {name} writes {written[0]} in its forward pass, as BatchNorm does: what it writes describes "
            "one client's data and means nothing when averaged; use nn.GroupNorm or nn.LayerNorm instead"
        )
    if not _equal(first, same_draws):
        raise InvalidExperiment(
            f"model.name: {name} puts out something else for the same samples when it is called again, so that no "
            "result could be repeated; its forward pass must not depend on earlier calls, or on a clock"
        )
    trial.eval()
    if not _equal(_outputs(trial, x, name, draw=0), _outputs(trial, x, name, draw=1)):
        raise InvalidExperiment(
            f"model.name: {name} draws random numbers in evaluation too, so that no score could be repeated; "
            "draw them only where self.training is true"
        )
    _outputs(trial, x[:1], name, draw=0)
    return not _equal(first, other_draws)


@torch.no_grad()
def _outputs(module: nn.Module, x: Tensor, name: str, draw: int) -> Tensor:
    devices = [x.device] if x.device.type == "cuda" else []
    with isolated(0, Purpose.DRAWS, draw, devices=devices):
        try:
            outputs = module(x)
        except CANNOT_RUN as error:
            mode = "training" if module.training else "evaluation"
            raise InvalidExperiment(
                f"model.name: {name} fails in {mode} on a batch of shape {tuple(x.shape)}: {_first_line(error)}"
            ) from error
    if not isinstance(outputs, Tensor):
        raise InvalidExperiment(f"model.name: {name} puts out {type(outputs).__name__}, not a tensor of logits")
    return outputs


def _state(module: nn.Module) -> Mapping[str, Tensor]:
    """Parameters and buffers by name, including those that are not in the state_dict."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether all bits are the same, NaN for NaN."""
    return one.shape == other.shape and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
