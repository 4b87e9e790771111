"""What Adagrad, Adam and Yogi share as server optimizers: Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar,
McMahan, "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295), Algorithm 2.

    m <- beta_1 m + (1 - beta_1) D
    v <- ...                                    each its own, from D, not from m
    x <- x + server_lr m / (sqrt(v) + tau)

m starts at 0 and v at tau^2, the least that the paper allows. There is no bias correction. tau is added to the root,
not under it, and is no multiple of server_lr. (The code of the paper's experiments starts v at 0, and its Adam is that
of Keras, which corrects the bias.)
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor

from fedopt.server_optimizers.base import ServerOptimizer
from fedopt.vectors.layout import Vectors


class Adaptive(ServerOptimizer):
    server_tau: float = Field(1e-3, gt=0)
    """tau, which is added to the root of v, and whose square v starts at: the larger, the less adaptive the steps."""

    @property
    @abstractmethod
    def _beta1(self) -> float: ...

    @abstractmethod
    def _next_v(self, v: Tensor, squared: Tensor) -> Tensor:
        """v after a round, from D^2."""

    def state(self, x: Tensor) -> Vectors:
        return {"m": torch.zeros_like(x), "v": torch.full_like(x, self.server_tau**2)}

    def step(self, x: Tensor, direction: Tensor, state: Vectors, lr: float) -> tuple[Tensor, Vectors]:
        m = self._beta1 * state["m"] + (1 - self._beta1) * direction
        v = self._next_v(state["v"], direction.square())
        return x + lr * m / (v.sqrt() + self.server_tau), {"m": m, "v": v}
