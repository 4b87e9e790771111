"""timm's models by name, as `timm:resnet18`."""

from __future__ import annotations

import difflib
from typing import ClassVar

from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.models.base import Shape
from fedopt.models.factory import FactoryModel


class TimmModel(FactoryModel):
    """As timm builds it, with the data's number of classes and of channels, and random weights."""

    refused_keys: ClassVar[tuple[str, ...]] = ("pretrained", "checkpoint_path", "cache_dir")

    def make(self, sample_shape: Shape, classes: int) -> nn.Module:
        try:
            import timm
        except ModuleNotFoundError as error:
            raise InvalidExperiment(f"model.name: {self.name} needs timm: pip install 'fedopt[timm]'") from error
        if not timm.is_model(self.after_prefix):  # a name of a model on a hub would be one to download
            raise self.unknown(difflib.get_close_matches(self.after_prefix, timm.list_models()), "timm")
        channels, _, _ = self.image_shape(sample_shape, smallest=1)
        arguments = {
            **(self.model_extra or {}),
            "model_name": self.after_prefix,
            "pretrained": False,
            "num_classes": classes,
            "in_chans": channels,
        }
        return self.call(timm.create_model, arguments)
