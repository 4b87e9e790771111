"""The contract of a server optimizer: its own settings, what it keeps between rounds, and its step.

The mean D = sum p_i (y_i - x) / sum p_i of the clients' updates takes the place of a negative gradient: x moves along
+D, and the rate is the experiment's algorithm.server_lr, whatever the clients' own rate was. All vectors are [P].

    class SignServer(ServerOptimizer):
        def step(self, x: Tensor, direction: Tensor, state: Vectors, lr: float) -> tuple[Tensor, Vectors]:
            return x + lr * direction.sign(), state
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fedopt.family import Family
from fedopt.registry import Registry
from fedopt.server_optimizers import SERVER_OPTIMIZERS
from fedopt.vectors.layout import Vectors

Decay = Annotated[float, Field(ge=0, lt=1)]


class ServerOptimizer(Family, ABC):
    """Base of all server optimizers; its fields are keys of the experiment's [algorithm] section. They begin with
    `server_`, so that no algorithm has a key of the same name."""

    registry: ClassVar[Registry] = SERVER_OPTIMIZERS
    refuses_misspelled_hooks: ClassVar[bool] = True

    def state(self, x: Tensor) -> Vectors:
        """What it keeps beside x, before the first round. Checkpoints hold it."""
        return {}

    @abstractmethod
    def step(self, x: Tensor, direction: Tensor, state: Vectors, lr: float) -> tuple[Tensor, Vectors]:
        """The next x and state; `direction` is D. Nothing is changed in place."""
