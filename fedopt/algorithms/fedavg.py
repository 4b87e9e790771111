"""FedAvg: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017 (arXiv:1602.05629), Algorithm 1.

    each round, each chosen client i:  y_i <- x,  then local steps  y_i <- y_i - lr * g(y_i)
    server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i

With another `algorithm.server` the mean update is what that server optimizer steps along.
"""

from __future__ import annotations

from torch import Tensor

from fedopt.algorithms.base import ServerRound
from fedopt.algorithms.local_work import Finished, LocalWork
from fedopt.algorithms.server_step import ServerStepped
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class FedAvg(ServerStepped):
    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return self._step(x, totals.mean("dx"), server)
