"""The model and the data of the app. Put your own in their place."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

import fedopt
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition

Samples = tuple[Tensor, Tensor]


def make_model() -> nn.Module:
    """From images [B, 1, 8, 8] to logits [B, 10]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@functools.cache
def load_digits(clients: int, seed: int) -> tuple[list[Samples], Samples]:
    """Training samples of each client, with a label skew, and the test samples; as `fedopt run` reads them."""
    settings = fedopt.Experiment(data={"name": "digits", "clients": clients, "alpha": 0.3}).data
    dataset = load_dataset(settings, seed).to(torch.device("cpu"), torch.get_default_dtype())
    parts = partition(dataset, settings, seed)
    own = [(dataset.x_train[part], dataset.y_train[part]) for part in parts]
    return own, (dataset.x_test, dataset.y_test)


@torch.no_grad()
def accuracy(model: nn.Module, samples: Samples) -> float:
    """The share of the samples that the model classifies correctly."""
    x, y = samples
    model.eval()
    return (model(x).argmax(1) == y).double().mean().item()
