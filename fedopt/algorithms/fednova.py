"""FedNova: Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization", NeurIPS 2020 (arXiv:2007.07481), Section 4.1 for a_i and Section 5 for the server.

    each round, each chosen client i:  y_i <- x,  then steps on  g(y_i) + mu (y_i - x)
                                       y_i - x = -sum_k a_ik g_k,   |a_i| = sum_k a_ik
                                       d_i <- (x - y_i) / |a_i|
    server:                            x <- x - server_lr * (sum w_i |a_i|) sum w_i d_i,   w_i = p_i / sum p_i

a_ik is the weight of the k-th gradient in what the client's steps add up to; here it contains the learning rate, so
that schedules count. |a_i| is what a constant gradient of 1 would move y_i by: lr K for SGD, for momentum r
lr (K - r (1 - r^K) / (1 - r)) / (1 - r), and (1 - (1 - lr mu)^K) / mu with the proximal term. Clients that take more
steps then weigh no more than others. FedAvg minimizes sum w_i |a_i| f_i in place of sum w_i f_i, however small lr is;
FedNova's distance from the optimum shrinks with lr. Weight decay is a part of g.

The factor sum w_i |a_i| is the paper's default. The paper's experiments with the proximal term use sum w_i lr K_i
instead. That factor is larger, so x moves further in a round; a server_lr above 1 has the same effect.

Traps: FedNova still favors some clients where updates are divided by K although the optimizer has momentum, or where
the weights of the average do not add up to 1.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, Participation, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.optimizers.local import LocalSettings
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class FedNova(Algorithm):
    mu: float = Field(0.0, ge=0)
    """The factor of the proximal term: mu (y - x) is added to every gradient."""

    sends_up: ClassVar[tuple[str, ...]] = ("d",)
    sends_numbers: ClassVar[tuple[str, ...]] = ("a",)
    reads_schedule: ClassVar[bool] = True

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if local.optimizer.accumulated([local.lr], self.mu) is None:
            return (
                f"fednova needs the weight of each gradient in a client's update, and {local.optimizer.name} has none"
            )
        if local.state != "reset" and local.optimizer.moment_names:
            return f'fednova takes momentum that starts at zero in each round, not local.state = "{local.state}"'
        return None

    def begin(self, local: LocalStart) -> Vectors:
        return {"x": local.x} if self.mu else {}

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        return gradient + self.mu * (y - prepared["x"]) if self.mu else gradient

    def finish(self, work: LocalWork) -> Finished:
        assert work.optimizer is not None
        rates = list(work.step_rates)
        a = work.steps.new_tensor(
            [work.optimizer.accumulated(rates[:steps], self.mu) for steps in map(int, work.steps.tolist())]
        )
        return Finished(up={"d": -work.displacement / a[:, None]}, numbers={"a": a})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x - self.server_lr * totals.number("a") * totals.mean("d"), server
