"""torchvision's classification models by name, as `torchvision:resnet18`."""

from __future__ import annotations

import difflib
from typing import ClassVar

from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.models.base import Shape
from fedopt.models.factory import FactoryModel


class TorchvisionModel(FactoryModel):
    """As torchvision builds it, with the data's number of classes and random weights; for images with 3 channels."""

    refused_keys: ClassVar[tuple[str, ...]] = ("pretrained",)

    def make(self, sample_shape: Shape, classes: int) -> nn.Module:
        from torchvision import models  # here: the import takes a second

        known = models.list_models(module=models)
        if self.after_prefix not in known:
            raise self.unknown(difflib.get_close_matches(self.after_prefix, known), "torchvision")
        channels, _, _ = self.image_shape(sample_shape, smallest=1)
        if channels != 3:
            raise InvalidExperiment(
                f"model.name: {self.name} takes images with 3 channels, the data have {channels}; timm:NAME and the "
                "models resnet8 and resnet18 take any number"
            )
        builder = models.get_model_builder(self.after_prefix)
        return self.call(builder, {**(self.model_extra or {}), "weights": None, "num_classes": classes})
