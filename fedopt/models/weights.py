"""model.weights: a state_dict in a .safetensors file as the start of a run, pretrained elsewhere or by another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.models.batchnorm import buffers_of

SHOWN = 3
"""The most names in a message."""


def load_weights(module: nn.Module, file: Path, name: str) -> list[str]:
    """Loads the file's tensors into the module; returns sentences about what was not loaded.

    Names must be those of the module's state_dict, and shapes too, except for the last layer: where it has another
    shape, for example for another number of classes, it keeps its initial weights. InvalidExperiment says what does not
    fit.
    """
    found, own = _read(file), module.state_dict()
    missing, unknown = [key for key in own if key not in found], [key for key in found if key not in own]
    if missing or unknown:
        parts = [f"it lacks {_listed(missing)}"] * bool(missing) + [f"{name} has no {_listed(unknown)}"] * bool(unknown)
        raise InvalidExperiment(f"model.weights: {file} is no state_dict of {name}: {', and '.join(parts)}")
    unlike = [key for key in own if found[key].shape != own[key].shape]
    last = _last_layer(module)
    wrong = [key for key in unlike if key.rpartition(".")[0] != last]
    if wrong:
        theirs, ours = tuple(found[wrong[0]].shape), tuple(own[wrong[0]].shape)
        raise InvalidExperiment(
            f"model.weights: {wrong[0]} has the shape {theirs} in {file}, and {ours} in {name}; only the last layer, "
            f"{last or 'its root'}, may differ"
        )
    left_out = {key for key in own if unlike and key.rpartition(".")[0] == last}
    with torch.no_grad():
        for key, tensor in own.items():  # those of a state_dict are the module's own memory
            if key not in left_out:
                tensor.copy_(found[key])
    if not left_out:
        return []
    theirs, ours = tuple(found[unlike[0]].shape), tuple(own[unlike[0]].shape)
    return [
        f"model.weights: {last or 'the last layer'} was not loaded and starts at random: its "
        f"{unlike[0].rpartition('.')[2]} has the shape {theirs} in {file.name}, and {ours} here"
    ]


def untrained(module: nn.Module) -> str | None:
    """A name in the state_dict that no client trains, so that it does not travel; None if there is none.

    BatchNorm's statistics travel, and its count of batches does nothing.
    """
    trained = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    left = {key: id(value) for key, value in module.state_dict(keep_vars=True).items() if key not in buffers_of(module)}
    return next((key for key, value in left.items() if value not in trained), None)


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except FileNotFoundError as error:
        raise InvalidExperiment(f"model.weights: there is no file {file}") from error
    except (safetensors.SafetensorError, OSError) as error:
        how = f'safetensors.torch.save_file(module.state_dict(), "{file.stem}.safetensors") writes one'
        raise InvalidExperiment(f"model.weights: {file} is not a safetensors file; {how}") from error


def _last_layer(module: nn.Module) -> str:
    """The path of the layer that has the module's last parameter."""
    *_, (name, _) = module.named_parameters()
    return name.rpartition(".")[0]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
