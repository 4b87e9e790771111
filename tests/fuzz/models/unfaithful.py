"""Modules that draw random numbers or change themselves: the reference does not follow them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.fuzz.models.base import Net, Shape, small_layers, vector


class Writer(nn.Module):
    """Writes a buffer in its forward pass, and reads what earlier calls have written."""

    seen: Tensor

    def __init__(self, sample_shape: Shape, classes: int) -> None:
        super().__init__()
        self.inner = small_layers(sample_shape, classes)
        self.register_buffer("seen", torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x)
        with torch.no_grad():
            self.seen.mul_(0.9).add_(scores.mean(0), alpha=0.1)
        return scores - self.seen


class Counter(nn.Module):
    """Every call but the first changes what the next one does."""

    def __init__(self, sample_shape: Shape, classes: int) -> None:
        super().__init__()
        self.inner = small_layers(sample_shape, classes)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        scores: Tensor = self.inner(x)
        return scores / self.calls


def _noise(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc1(x))
    if net.training:
        h = h + 0.1 * torch.randn_like(h)
    return net.head(torch.tanh(net.fc3(torch.tanh(net.fc2(h)))))


def _functional_dropout(net: Any, x: Tensor) -> Any:
    h = F.dropout(torch.tanh(net.fc1(x)), 0.3, net.training)
    return net.head(torch.tanh(net.fc3(F.dropout(torch.tanh(net.fc2(h)), 0.5, net.training))))


def _shuffled(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
    order = torch.randperm(h.shape[1]) if net.training else torch.arange(h.shape[1])
    return net.head(torch.tanh(net.fc3(h[:, order])))


def _numpy_noise(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
    return net.head(torch.tanh(net.fc3(h * float(np.random.rand() if net.training else 0.5))))  # noqa: NPY002


noise = vector(_noise)
functional_dropout = vector(_functional_dropout)
shuffled = vector(_shuffled)
numpy_noise = vector(_numpy_noise)


def dropout_layer(sample_shape: Shape, classes: int) -> nn.Module:
    width = math.prod(sample_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, classes))


def writer(sample_shape: Shape, classes: int) -> nn.Module:
    return Writer(sample_shape, classes)


def counter(sample_shape: Shape, classes: int) -> nn.Module:
    return Counter(sample_shape, classes)


def batch_norm(sample_shape: Shape, classes: int) -> nn.Module:
    width = math.prod(sample_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


def attention_dropout(sample_shape: Shape, classes: int) -> nn.Module:
    return Net(
        lambda net, x: net.head(net.body(net.stem(x)).mean(1)),
        stem=nn.Linear(sample_shape[-1], 4),
        body=nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.2, batch_first=True),
        head=nn.Linear(4, classes),
    )
