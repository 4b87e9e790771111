"""Scaffnew: Mishchenko, Malinovsky, Stich, Richtárik, "ProxSkip: Yes! Local Gradient Steps Provably Lead to
Communication Acceleration! Finally!", ICML 2022 (arXiv:2202.09357), Algorithm 2.

    each step, each client i:  y_i <- y_i - lr (g(y_i) - h_i)
    with probability p, all:   x <- sum p_i y_i,   h_i <- h_i + (p / lr) (x - y_i),   y_i <- x

A round is what lies between two averages: a number of steps with P(K = k) = p (1 - p)^(k - 1), the same for all
clients, from the round's stream. All h_i start at zero. Since sum p_i h_i stays zero, a point where every client
stays has h_i = grad f_i(x) and sum p_i grad f_i(x) = 0: it is the optimum.

A client learns x only when the next round begins, so it keeps h_i - (p / lr) (y_i - x) with the x that it started
from, and the server sends the last mean update: (p / lr) of it completes h_i. An update that is lost leaves sum p_i h_i
off zero for good; run.min_replies = data.clients ends such a round.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, Participation, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.optimizers.local import LocalSettings
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class Scaffnew(Algorithm):
    p: float = Field(0.1, gt=0, le=1)
    """The probability that the clients communicate after a step: a round has 1 / p steps on average, whatever
    local.epochs and local.steps say."""

    reads_schedule: ClassVar[bool] = True

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if terms.cohort < terms.clients:
            return f"scaffnew needs all {terms.clients} clients in every round; set run.participation = 1.0"
        if not local.is_plain_descent or not local.rates.is_constant:
            return "scaffnew takes plain steps of sgd at a constant rate, without momentum, weight_decay or clip"
        if local.stragglers:
            return "scaffnew's clients all take the same number of steps; leave out local.stragglers"
        if self.server_lr != 1:
            return "scaffnew's server takes the mean of the clients' models; leave out algorithm.server_lr"
        return None

    def common_steps(self, round_: ServerRound) -> int:
        return int(round_.stream().geometric(self.p))

    def server_state(self, x: Tensor) -> Vectors:
        return {"moved": torch.zeros_like(x)}

    def client_state(self, x: Tensor) -> Vectors:
        return {"h": torch.zeros_like(x)}

    def sends_down(self, server: Vectors) -> Vectors:
        return {"moved": server["moved"]}

    def begin(self, local: LocalStart) -> Vectors:
        return {"h": local.state["h"] + self.p / local.rates[0] * local.down["moved"]}

    def shift(self, prepared: Vectors) -> Tensor:
        return -prepared["h"]

    def finish(self, work: LocalWork) -> Finished:
        h = work.prepared["h"] - self.p / work.step_rates[0] * work.displacement
        return Finished(up={"dx": work.displacement}, state={"h": h})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        moved = totals.mean("dx")
        return x + moved, {"moved": moved}
