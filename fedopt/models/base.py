"""A model family: settings that build a torch module for given data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.family import Family
from fedopt.models import MODELS
from fedopt.registry import Registry

Shape = tuple[int, ...]


class ModelFamily(Family, ABC):
    """Base of all families; its fields are the keys of the experiment's [model] section."""

    registry: ClassVar[Registry] = MODELS

    @abstractmethod
    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        """A module from samples [B, *sample_shape] to logits [B, classes]. Initialized by torch's defaults."""

    def image_shape(self, sample_shape: Shape, smallest: int) -> tuple[int, int, int]:
        """(channels, height, width), for families that work on images of at least smallest x smallest."""
        if len(sample_shape) != 3 or min(sample_shape[1:]) < smallest:
            raise InvalidExperiment(
                f"model.name: {self.name} needs images of at least {smallest} x {smallest} pixels, the data "
                f"have samples of shape {sample_shape}; mlp and logistic take any shape"
            )
        channels, height, width = sample_shape
        return channels, height, width
