"""Steps along the mean update: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification", 2019 (arXiv:1909.06335), Section 4.3, FedAvgM.

    v <- b v + D
    x <- x + server_lr v              heavy ball
      or x + server_lr (D + b v)      Nesterov, with the new v, as torch.optim.SGD steps

Momentum is undamped, as in the paper: with a steady D, x moves by server_lr D / (1 - b) a round.
"""

from __future__ import annotations

import torch
from pydantic import model_validator
from torch import Tensor

from fedopt.section import wrong
from fedopt.server_optimizers.base import Decay, ServerOptimizer
from fedopt.vectors.layout import Vectors


class ServerSgd(ServerOptimizer):
    server_momentum: Decay = 0.0
    """The momentum factor of the server's steps; 0 is plain averaging."""
    server_nesterov: bool = False
    """Whether the server takes Nesterov's momentum."""

    @model_validator(mode="after")
    def _consistent(self) -> ServerSgd:
        if self.server_nesterov and self.server_momentum == 0:
            raise wrong("server_nesterov", "needs server_momentum above 0, for example server_momentum = 0.9")
        return self

    def state(self, x: Tensor) -> Vectors:
        return {"v": torch.zeros_like(x)} if self.server_momentum > 0 else {}

    def step(self, x: Tensor, direction: Tensor, state: Vectors, lr: float) -> tuple[Tensor, Vectors]:
        if self.server_momentum == 0:
            return x + lr * direction, state
        v = self.server_momentum * state["v"] + direction
        along = direction + self.server_momentum * v if self.server_nesterov else v
        return x + lr * along, {"v": v}
