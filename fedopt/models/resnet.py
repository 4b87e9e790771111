"""Residual networks for small images (He et al. 2016, arXiv:1512.03385) with GroupNorm in place of BatchNorm.

Batch statistics of a non-IID client describe that client and not the population, and their average describes
neither. GroupNorm has no batch statistics (Hsieh et al. 2020, arXiv:1910.00189). The stem is one 3x3 convolution
without pooling.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.models.base import ModelFamily, Shape


class ResNet8(ModelFamily):
    """Three stages of one block: 16, 32, 64 channels; 78k parameters."""

    groups: Annotated[int, Field(ge=1)] = 8
    """Groups of each GroupNorm layer; they divide the channels."""

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        channels, _, _ = self.image_shape(sample_shape, smallest=4)
        return _resnet(channels, classes, widths=(16, 32, 64), blocks=1, groups=self.groups)


class ResNet18(ModelFamily):
    """Four stages of two blocks: 64, 128, 256, 512 channels; 11.2M parameters."""

    groups: Annotated[int, Field(ge=1)] = 8
    """Groups of each GroupNorm layer; they divide the channels."""

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        channels, _, _ = self.image_shape(sample_shape, smallest=8)
        return _resnet(channels, classes, widths=(64, 128, 256, 512), blocks=2, groups=self.groups)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.GroupNorm(groups, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(groups, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(groups, outputs)
            )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.path(x) + self.shortcut(x))
        return y


def _resnet(channels: int, classes: int, widths: tuple[int, ...], blocks: int, groups: int) -> nn.Module:
    if any(width % groups for width in widths):
        raise InvalidExperiment(f"model.groups: {groups} does not divide the channels {widths}")
    layers: list[nn.Module] = [
        nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
        nn.GroupNorm(groups, widths[0]),
        nn.ReLU(),
    ]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(Block(inputs, width, stride, groups))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
