"""Logistic regression and multilayer perceptrons, on flattened samples."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from fedopt.models.base import ModelFamily, Shape


class Logistic(ModelFamily):
    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sample_shape), classes))


class Mlp(ModelFamily):
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((200, 200), strict=False)
    """Widths of the hidden layers; 200, 200 is the "2NN" of McMahan et al. 2017."""

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(sample_shape)
        for hidden in self.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        return nn.Sequential(*layers, nn.Linear(width, classes))
