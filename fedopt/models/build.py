"""Builds a module that can be federated, or says in one sentence why it cannot."""

from __future__ import annotations

import torch
from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.models.base import ModelFamily, Shape
from fedopt.models.batchnorm import OTHERWISE, keeping_statistics, why_not_carried
from fedopt.models.factory import FactoryModel
from fedopt.models.freezing import freeze
from fedopt.models.weights import load_weights
from fedopt.seeding import Purpose, isolated
from fedopt.vectors.layout import running_statistics


def build_model(
    family: ModelFamily, sample_shape: Shape, classes: int, seed: int, notes: list[str] | None = None
) -> nn.Module:
    """The module with its initial weights, a pure function of the settings, the shapes, the seed and model.weights.

    Sentences about what the user may not know are added to `notes`.
    """
    with isolated(seed, Purpose.WEIGHTS):
        module = family.build(sample_shape, classes)
        _refuse_what_cannot_be_federated(module, family)
        with keeping_statistics(module):
            _try_out(module, family.title, sample_shape, family.output_shape(sample_shape, classes))
    if family.weights is not None:
        not_loaded = load_weights(module, family.weights, family.title)
        if notes is not None:
            notes += not_loaded
    frozen = freeze(module, family.freeze or (), family.title)
    if notes is not None:
        notes += frozen
    return module


def _instead_of_batch_norm(family: ModelFamily) -> str:
    by_key = 'model.norm = "group" replaces it, or ' if isinstance(family, FactoryModel) else ""
    return f"{by_key}use nn.GroupNorm or nn.LayerNorm instead"


def _refuse_what_cannot_be_federated(module: nn.Module, family: ModelFamily) -> None:
    name = family.title
    for place, layer in module.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, nn.modules.batchnorm._NormBase) and (
            layer.track_running_stats or not isinstance(layer, nn.modules.instancenorm._InstanceNorm)
        ):
            obstacle = why_not_carried(layer)
            if family.batchnorm == "refuse":
                raise InvalidExperiment(
                    f"model.name: {name} has {kind} at {place or 'its root'}, whose batch statistics describe one "
                    f"client's data and mean nothing when averaged; {_instead_of_batch_norm(family)}"
                    f"{OTHERWISE if obstacle is None else ''}"
                )
            if obstacle is not None:
                raise InvalidExperiment(f"model.batchnorm: in {name}, at {place or 'its root'}, {obstacle}")
        if any(isinstance(p, nn.parameter.UninitializedParameter) for p in layer.parameters(recurse=False)):
            raise InvalidExperiment(
                f"model.name: {name} has {kind} at {place or 'its root'}, whose size is not known yet; "
                "give it its sizes"
            )
    if family.batchnorm != "refuse" and not running_statistics(module):
        raise InvalidExperiment(f"model.batchnorm: {name} has no BatchNorm; leave out batchnorm")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise InvalidExperiment(f"model.name: {name} has no trainable parameters")


def _try_out(module: nn.Module, name: str, sample_shape: Shape, output_shape: Shape) -> None:
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        try:
            outputs = module(torch.zeros(2, *sample_shape, dtype=dtype))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise InvalidExperiment(
                f"model.name: {name} cannot take samples of shape {sample_shape}: {str(error).splitlines()[0]}"
            ) from error
    shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if shape != (2, *output_shape):
        raise InvalidExperiment(
            f"model.name: {name} turns 2 samples into {shape}; {(2, *output_shape)} is needed, one logit for each class"
        )
