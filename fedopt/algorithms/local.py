"""Local training, the baseline without federation: each client trains a model of its own on its own data alone.

    each round, each chosen client i:  v_i <- v_i - lr * g_i(v_i),  from where its last round ended
    server:                            x <- x

All v_i start at the initial x, which never changes: `test_accuracy` is that of a model that nobody has trained. The
accuracies of the v_i on the clients' own test shares are the result.

Traps: A client that has not been selected yet still has the initial model. The v_i travel up as updates, so that their
drift is measured; the server does not use them.
"""

from __future__ import annotations

from torch import Tensor

from fedopt.algorithms.base import Algorithm, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class LocalOnly(Algorithm):
    def client_state(self, x: Tensor) -> Vectors:
        return {"v": x}

    def start(self, local: LocalStart) -> Tensor:
        return local.state["v"]

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement}, state={"v": work.y.clone()})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x, server

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        return state["v"]
