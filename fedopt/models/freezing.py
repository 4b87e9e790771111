"""model.freeze: parameters by patterns of their names that are not trained and do not travel."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.patterns import matched


def freeze(module: nn.Module, patterns: Sequence[str], name: str) -> list[str]:
    """Sets requires_grad to False; returns a sentence about what is left to train.

    InvalidExperiment for a pattern that fits no parameter, or if none is left; `name` is the model's in messages.
    """
    if not patterns:
        return []
    parameters = dict(module.named_parameters())
    frozen = matched(patterns, parameters, f"model.freeze: no parameter of {name}")
    for parameter in frozen:
        parameters[parameter].requires_grad_(False)
    trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
    if not trained:
        raise InvalidExperiment(f"model.freeze: it leaves nothing of {name} to train")
    left, all_of_it = (sum(p.numel() for p in some) for some in (trained, parameters.values()))
    return [f"model.freeze: {left:,} of {all_of_it:,} parameters are trained, and only they travel"]
