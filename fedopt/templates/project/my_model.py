"""The model: a function that returns a torch module."""

from __future__ import annotations

import math

from torch import nn


def make_model(sample_shape: tuple[int, ...], classes: int, hidden: int = 64) -> nn.Module:
    """From samples [B, *sample_shape] to logits [B, classes].

    fedopt passes sample_shape and classes; further arguments are keys of [model] in experiment.toml.
    """
    inputs = math.prod(sample_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
