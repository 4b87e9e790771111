"""FedLin: Mitra, Jaafar, Pappas, Hassani, "Linear Convergence in Federated Learning: Tackling Client Heterogeneity and
Sparse Gradients", NeurIPS 2021 (arXiv:2102.07053), Algorithm 1, without its sparsification.

    each round:                        c <- sum w_i grad f_i(x) over the cohort, an exchange of its own
    each chosen client i:              y_i <- x,  then K_i steps on  g(y_i) - grad f_i(x) + c
    server:                            x <- x + server_lr * sum w_i (y_i - x)

At the optimum of all clients c is zero and every client stays, however many steps it takes: with all clients in every
round that is the only fixed point. The paper's rates are lr / K_i, so that a client with many steps does not go
further than the others (rates = "by-steps"). With a part of the clients, c leads to the optimum of that part.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from fedopt.algorithms.base import SURVEYED, Algorithm, Participation, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.optimizers.local import LocalSettings
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class FedLin(Algorithm):
    rates: Literal["common", "by-steps"] = "common"
    """Whether clients step with local.lr, or with local.lr / K_i, where K_i is the client's number of steps."""

    surveys: ClassVar[bool] = True

    @property
    def needs_one_rate(self) -> bool:
        return self.rates == "by-steps"

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if self.rates == "by-steps" and not local.is_plain_descent:
            return (
                'fedlin scales gradients for rates = "by-steps", which is a rate for plain sgd alone; leave out '
                "momentum, weight_decay and clip"
            )
        return None

    def begin(self, local: LocalStart) -> Vectors:
        shift = local.down[SURVEYED] - local.full_gradient()
        return {"shift": shift, "steps": local.steps[:, None]} if self.rates == "by-steps" else {"shift": shift}

    def shift(self, prepared: Vectors) -> Tensor | None:
        return prepared["shift"] if self.rates == "common" else None

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        corrected = gradient + prepared["shift"]
        return corrected if self.rates == "common" else corrected / prepared["steps"]

    @property
    def corrects_gradients(self) -> bool:
        return self.rates == "by-steps"

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x + self.server_lr * totals.mean("dx"), {}
