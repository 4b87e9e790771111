"""FedSpeed: Sun, Shen, Huang, Ding, Tao, "FedSpeed: Larger Local Interval, Less Communication Round, and Higher
Generalization Accuracy", ICLR 2023 (arXiv:2302.10429), Algorithm 1.

    each round, each chosen client i:  y_i <- x,  then local steps, each on one minibatch
                                       g_1 <- g(y_i),  g_2 <- g(y_i + rho g_1)
                                       y_i <- y_i - lr * ((1 - alpha) g_1 + alpha g_2 - ghat_i + (y_i - x) / lam)
                                       ghat_i <- ghat_i - (y_i - x) / lam
                                       sends  y_i - lam ghat_i,  with the new ghat_i
    server:                            x <- the mean of these, weighted by p_i;  with server_lr, that part of the way

ghat_i, the prox-correction, starts at 0. It is FedDyn's h_i with FedDyn's alpha = 1 / lam: with all clients in every
round and rho = 0 both are the same method, and x is the optimum where both come to rest. They differ in a partial
cohort, where FedSpeed takes the correction of the cohort alone (the authors' code takes that of all clients). The
perturbation rho g_1 is a plain gradient step, as in Algorithm 1; for a radius, as in the paper's experiments, set
ascent = "radius".

What travels up is no displacement y_i - x, so drift is not measured.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, Participation, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork, MinibatchGradient
from fedopt.algorithms.proximal import overshooting
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sam import AroundBase, ascent
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class FedSpeed(Algorithm):
    lam: float = Field(10.0, gt=0)
    """The paper's lambda: the proximal term has the weight 1 / lam, which is 0.1 in the authors' code."""
    rho: float = Field(0.1, ge=0)
    """The length of the ascent step before the second gradient: a rate, or a radius."""
    alpha: float = Field(1.0, ge=0, le=1)
    """The share of the gradient behind the ascent step; the rest is the gradient at the client's model."""
    ascent: Literal["step", "radius"] = "step"
    """The ascent step: rho times the gradient, or of length rho along it."""

    sends_up: ClassVar[tuple[str, ...]] = ("amended",)

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if isinstance(local.optimizer, AroundBase):
            return "fedspeed perturbs by itself, and local.optimizer would perturb again; give its local.base instead"
        return overshooting(1 / self.lam, "1 / algorithm.lam", local)

    def client_state(self, x: Tensor) -> Vectors:
        return {"ghat_i": torch.zeros_like(x)}

    def begin(self, local: LocalStart) -> Vectors:
        return {"x": local.x, "ghat_i": local.state["ghat_i"]}

    def gradient(self, at: MinibatchGradient, y: Tensor, prepared: Vectors) -> Tensor:
        g_1 = at(y)
        g_2 = at(y + (self.rho * g_1 if self.ascent == "step" else ascent(g_1, self.rho, p=2)))
        mixed = (1 - self.alpha) * g_1 + self.alpha * g_2
        return mixed - prepared["ghat_i"] + (y - prepared["x"]) / self.lam

    def finish(self, work: LocalWork) -> Finished:
        ghat_i_new = work.state["ghat_i"] - work.displacement / self.lam
        return Finished(up={"amended": work.displacement - self.lam * ghat_i_new}, state={"ghat_i": ghat_i_new})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x + self.server_lr * totals.mean("amended"), server
