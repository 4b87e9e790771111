"""A Flower App over four small clients, and a model with everything that does not train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from fedopt.flower import InProcessGrid
from tests.fedopt.flower.apps import Samples, Training

LR, STEPS = 0.1, (3, 1, 5, 2)
"""Unequal local steps of four clients."""


def some_data(clients: int = 4, features: int = 5, seed: int = 0) -> list[Samples]:
    """Clients of 6, 9, 12, ... samples of three classes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [6 + 3 * client for client in range(clients)]
    return [
        (
            torch.randn(size, features, generator=generator, dtype=torch.float64),
            torch.randint(3, (size,), generator=generator),
        )
        for size in sizes
    ]


def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(5, 3).double()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LR)


def training(model: Callable[[], nn.Module] = linear, **options: Any) -> Training:
    steps = options.pop("steps_of", lambda client: STEPS[client])
    return Training(options.pop("data", some_data()), model, sgd, "full", None, steps, **options)


def play(strategy: Any, app: ClientApp, model: nn.Module, rounds: int = 1, nodes: int = 4) -> dict[str, Tensor]:
    """The weights after so many rounds."""
    result = strategy.start(InProcessGrid(app, nodes), ArrayRecord(model.state_dict()), num_rounds=rounds)
    return dict(result.arrays.to_torch_state_dict())


class Normalized(nn.Module):
    """A frozen layer, BatchNorm, and a head; two clients with the same data."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.frozen = nn.Linear(5, 4)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.frozen(x)))
        return out
