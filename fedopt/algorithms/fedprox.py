"""FedProx: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks",
MLSys 2020 (arXiv:1812.06127), Algorithm 2.

    each round, each chosen client i:  y_i <- an inexact minimizer of  f_i(y) + mu / 2 |y - x|^2,
                                       by local steps from x on  g(y_i) + mu (y_i - x)
    server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i

The term is part of the gradient that the local optimizer sees, so it passes through momentum and Adam, and clipping
comes after it. Unlike weight decay it pulls to x, not to zero. The paper samples clients with probability p_i and takes
their plain mean; here all clients are equally likely, and the mean is weighted. mu = 0 is FedAvg, to the bit on the
backend `each`; `stacked` adds FedAvg's gradients to the weights without a tensor of their own and rounds differently.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Participation
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import LocalStart
from fedopt.algorithms.proximal import overshooting
from fedopt.optimizers.local import LocalSettings
from fedopt.vectors.layout import Vectors


class FedProx(FedAvg):
    mu: float = Field(0.01, ge=0)
    """The weight of the proximal term; 0 is FedAvg, and large values hold clients near the global model. The paper
    chooses among 0.001, 0.01, 0.1 and 1."""

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        return super().objection(local, terms) or overshooting(self.mu, "algorithm.mu", local)

    def begin(self, local: LocalStart) -> Vectors:
        return {"x": local.x}

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        return gradient + self.mu * (y - prepared["x"])
