"""Adagrad on the server: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295), Algorithm 2.

    v <- v + D^2

with the rest of `adaptive`. The paper's experiments take beta_1 = 0.
"""

from __future__ import annotations

from torch import Tensor

from fedopt.server_optimizers.adaptive import Adaptive
from fedopt.server_optimizers.base import Decay


class ServerAdagrad(Adaptive):
    server_beta: Decay = 0.0
    """Decay rate of the running mean of the mean update."""

    @property
    def _beta1(self) -> float:
        return self.server_beta

    def _next_v(self, v: Tensor, squared: Tensor) -> Tensor:
        return v + squared
