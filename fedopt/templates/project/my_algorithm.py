"""The algorithm: FedProx (Li et al. 2020, arXiv:1812.06127), as a place to start from.

each round, each chosen client i:  y_i <- x,  then steps on  g(y_i) + mu (y_i - x)
server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import LocalStart
from fedopt.vectors.layout import Vectors


class Proximal(FedAvg):
    """Fields are keys of [algorithm] in experiment.toml."""

    mu: float = Field(0.1, ge=0)
    """How strongly a client is drawn back to the global model; 0 is FedAvg."""

    def begin(self, local: LocalStart) -> Vectors:
        """What a client prepares once a round."""
        return {"x": local.x}

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        """The gradient that the optimizer sees, [lanes, Q], from the raw one at y."""
        return gradient + self.mu * (y - prepared["x"])
