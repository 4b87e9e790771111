"""GroupNorm in place of BatchNorm, whose batch statistics cannot be federated (Hsieh et al. 2020, arXiv:1910.00189)."""

from __future__ import annotations

import torch
from torch import nn

from fedopt.errors import InvalidExperiment

GROUPS = 8
"""As in the ResNets of this package. It divides the channels of most networks."""

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def with_group_norm(module: nn.Module, groups: int, name: str) -> nn.Module:
    """Replaces every BatchNorm layer in place; GroupNorm gets its weight, bias and eps.

    InvalidExperiment if there is none, or if one cannot be replaced; `name` is the model's in messages.
    """
    found = [
        (path, layer) for path, layer in module.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]
    if not found:
        raise InvalidExperiment(f"model.norm: {name} has no BatchNorm; leave out norm")
    for path, layer in found:
        new = _replacement(layer, groups, f"{name} at {path or 'its root'}")
        if not path:
            return new
        parent, _, attribute = path.rpartition(".")
        setattr(module.get_submodule(parent), attribute, new)
    return module


def _replacement(layer: nn.modules.batchnorm._BatchNorm, groups: int, place: str) -> nn.Module:
    if layer.num_features % groups:
        fitting = ", ".join(str(n) for n in range(1, 65) if layer.num_features % n == 0)
        raise InvalidExperiment(
            f"model.norm_groups: {groups} does not divide the {layer.num_features} channels of {place}; {fitting} do"
        )
    norm = nn.GroupNorm(groups, layer.num_features, layer.eps, layer.affine)
    with torch.no_grad():
        if layer.affine:
            norm.weight.copy_(layer.weight)
            norm.bias.copy_(layer.bias)
    if type(layer) in PLAIN:
        return norm
    # timm's BatchNormAct2d holds the dropout and the activation that follow the normalization.
    parts = dict(layer.named_children())
    if not parts.keys() <= {"drop", "act"}:
        raise InvalidExperiment(f"model.norm: {type(layer).__name__} of {place} is a BatchNorm that cannot be replaced")
    return nn.Sequential(norm, *(parts[part] for part in ("drop", "act") if part in parts))
