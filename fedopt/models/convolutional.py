"""The two convolutional networks of the federated literature."""

from __future__ import annotations

from torch import nn

from fedopt.models.base import ModelFamily, Shape


class Cnn(ModelFamily):
    """LeNet-style, as in NIID-Bench (Li et al. 2022, arXiv:2102.02079): 5x5x6, 5x5x16, 120, 84."""

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        channels, height, width = self.image_shape(sample_shape, smallest=16)

        def after(side: int) -> int:
            return ((side - 4) // 2 - 4) // 2  # two 5x5 convolutions without padding, each halved

        return nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * after(height) * after(width), 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )


class CnnMcMahan(ModelFamily):
    """The CNN of McMahan et al. 2017: 5x5x32, 5x5x64 with padding, 512."""

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        channels, height, width = self.image_shape(sample_shape, smallest=4)
        return nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 512),
            nn.ReLU(),
            nn.Linear(512, classes),
        )
