"""Algorithms whose clients step along the direction of the last round, behind their optimizer.

    G = -sum p_i (y_i - x) / sum p_i R_i,   R_i the sum of the client's learning rates, K lr with a constant one

is in the optimizer's units: what a step of the round took away, divided by its rate. It is zero in the first round.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedopt.algorithms.base import Algorithm, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class AlongGlobalDirection(Algorithm):
    sends_numbers: ClassVar[tuple[str, ...]] = ("rates",)
    reads_schedule: ClassVar[bool] = True

    def server_state(self, x: Tensor) -> Vectors:
        return {"G": torch.zeros_like(x)}

    def sends_down(self, server: Vectors) -> Vectors:
        return {"G": server["G"]}

    def begin(self, local: LocalStart) -> Vectors:
        return {"G": local.down["G"]}

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement}, numbers={"rates": work.rates})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        mean = totals.mean("dx")
        return x + self.server_lr * mean, {"G": mean / -totals.number("rates")}
