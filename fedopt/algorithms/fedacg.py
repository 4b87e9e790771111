"""FedACG: Kim, Kim, Han, "Communication-Efficient Federated Learning with Accelerated Client Gradient", CVPR 2024
(arXiv:2201.03172), Algorithm 1.

    each chosen client i:  y_i <- z = x + lambda m,  then local steps on  f_i(y_i) + beta/2 |y_i - z|^2
                           D_i = y_i - z
    server:                m <- lambda m + sum p_i D_i / sum p_i
                           x <- x + m

With a server_lr other than the paper's 1, x <- x + server_lr m and z = x + server_lr lambda m: where the server would
step if the clients stood still. D_i counts from z; counted from x, as in FedAvg, it would hold lambda m a second time.
The proximal term pulls to z too, not to x.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class FedACG(Algorithm):
    server_momentum: float = Field(0.85, ge=0, lt=1)
    """lambda, the momentum factor and the length of the lookahead."""
    beta: float = Field(0.01, ge=0)
    """Weight of the proximal term. The authors' code has a penalty of 0.001 |y - z|^2, which is 0.002 here."""

    def server_state(self, x: Tensor) -> Vectors:
        return {"m": torch.zeros_like(x)}

    def sends_down(self, server: Vectors) -> Vectors:
        return {"m": server["m"]}

    def start(self, local: LocalStart) -> Tensor:
        return local.x + self._ahead(local.down)

    def begin(self, local: LocalStart) -> Vectors:
        return {"z": self.start(local)}

    @property
    def corrects_gradients(self) -> bool:
        return self.beta > 0

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        return gradient + self.beta * (y - prepared["z"])

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement - self._ahead(work.down)})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        m = self.server_momentum * server["m"] + totals.mean("dx")
        return x + self.server_lr * m, {"m": m}

    def _ahead(self, down: Vectors) -> Tensor:
        """z - x."""
        return self.server_lr * self.server_momentum * down["m"]
