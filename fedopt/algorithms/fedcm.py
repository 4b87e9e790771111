"""FedCM: Xu, Wang, Wang, Yao, "FedCM: Federated Learning with Client-level Momentum", 2021 (arXiv:2106.10874),
Algorithm 1.

    each round, each chosen client i:  y_i <- x,  then local steps  y_i <- y_i - lr * (alpha g(y_i) + (1 - alpha) Delta)
    server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i
                                       Delta <- - sum p_i (y_i - x) / sum p_i r_i

Delta starts at 0, so that the first round takes alpha times FedAvg's steps. r_i is the sum of the rates of the steps
that client i really took, the paper's K lr, in the round that Delta comes from: under a schedule the next round's rate
would rescale Delta. y_i - x is -r_i times client i's mean direction, so Delta is the mean of these directions, each
weighted by p_i r_i. With unequal steps that is the direction in which the server's mean really moved, per unit of rate,
and a client with more steps counts more, as it does in FedAvg; a mean of (y_i - x) / r_i would need a second vector up.
Weight decay is part of the displacement, and so of Delta. Clipping comes after the correction: it bounds the whole
direction, as in the FedCM of FL-Simulator. Under momentum or Adam (y_i - x) / r_i is no gradient, and the paper has
neither.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, Participation, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sgd import Sgd
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class FedCM(Algorithm):
    alpha: float = Field(0.1, gt=0, le=1)
    """The share of the local gradient in each step's direction; the rest is the mean direction of the round before. 1
    is FedAvg."""

    sends_numbers: ClassVar[tuple[str, ...]] = ("rates",)
    reads_schedule: ClassVar[bool] = True

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if type(local.optimizer) is Sgd and local.optimizer.momentum == 0:
            return None
        return (
            f"{self.name} turns the clients' displacement into a gradient, which it is under SGD without momentum "
            'alone; set local.optimizer = "sgd" and local.momentum = 0'
        )

    def server_state(self, x: Tensor) -> Vectors:
        return {"delta": torch.zeros_like(x)}

    def sends_down(self, server: Vectors) -> Vectors:
        return {"delta": server["delta"]}

    def begin(self, local: LocalStart) -> Vectors:
        return {"delta": local.down["delta"]}

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        return self.alpha * gradient + (1 - self.alpha) * prepared["delta"]

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement}, numbers={"rates": work.rates})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        mean = totals.mean("dx")
        return x + self.server_lr * mean, {"delta": -mean / totals.number("rates")}
