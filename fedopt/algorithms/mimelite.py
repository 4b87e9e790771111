"""MimeLite: Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh, "Breaking the centralized barrier for cross-device
federated learning" (Mime), NeurIPS 2021 (arXiv:2008.03606), Algorithm 1.

    each round, each chosen client i:  y_i <- x,  then steps  y_i <- y_i - lr U(g(y_i), s)
    server:                            s <- V(sum w_i grad f_i(x), s),   w_i = p_i / sum p_i
                                       x <- x + server_lr * sum w_i (y_i - x)

    momentum:  U = (1 - beta1) g + beta1 m,                        V:  m <- (1 - beta1) g + beta1 m
    adam:      U = ((1 - beta1) g + beta1 m) / (sqrt(v) + eps),    V:  m as above,  v <- (1 - beta2) g^2 + beta2 v
    adagrad:   U = g / (sqrt(v) + eps),                            V:  v <- v + g^2

s is the server's optimizer state. It comes down with x and does not change during a round, so a client's steps cannot
bend it towards the client's own data. V takes full gradients at x, not the gradients of the steps. s starts at zero
and there is no bias correction: in the first round adam and adagrad divide by eps alone.

FedJAX and TensorFlow Federated mimic any optimizer of theirs in place of these. Their momentum has no factor 1 - beta1
before g, so that their rates are 1 - beta1 times those here.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, Participation, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.optimizers.base import Decay
from fedopt.optimizers.local import LocalSettings
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals

STATE = {"momentum": ("m",), "adam": ("m", "v"), "adagrad": ("v",)}
"""What each optimizer of the server keeps."""


class MimeLite(Algorithm):
    base: Literal["momentum", "adam", "adagrad"] = "momentum"
    """The server's optimizer, whose state the clients use in their steps."""
    beta1: Decay = 0.9
    """The decay of m, for momentum and adam."""
    beta2: Decay = 0.99
    """The decay of v, for adam."""
    eps: float = Field(1e-3, gt=0)
    """Added to sqrt(v), for adam and adagrad."""

    sends_up: ClassVar[tuple[str, ...]] = ("dx", "g")

    @property
    def needs_one_rate(self) -> bool:
        return True  # clients take the plain steps of the server's optimizer

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if not local.is_plain_descent:
            return (
                f"the clients of {self.name} step with the optimizer of algorithm.base; leave local.optimizer at plain "
                "sgd, without momentum, weight_decay or clip"
            )
        return None

    def server_state(self, x: Tensor) -> Vectors:
        return {name: torch.zeros_like(x) for name in STATE[self.base]}

    def sends_down(self, server: Vectors) -> Vectors:
        return {name: server[name] for name in STATE[self.base]}

    def begin(self, local: LocalStart) -> Vectors:
        return dict(local.down)

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        if self.base != "adagrad":
            gradient = (1 - self.beta1) * gradient + self.beta1 * prepared["m"]
        return gradient if self.base == "momentum" else gradient / (prepared["v"].sqrt() + self.eps)

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement, "g": work.full_gradient()})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x + self.server_lr * totals.mean("dx"), self._tracked(totals.mean("g"), server)

    def _tracked(self, g: Tensor, s: Vectors) -> Vectors:
        """V."""
        found: Vectors = {}
        if "m" in s:
            found = {**found, "m": (1 - self.beta1) * g + self.beta1 * s["m"]}
        if "v" in s:
            v = s["v"] + g.square() if self.base == "adagrad" else (1 - self.beta2) * g.square() + self.beta2 * s["v"]
            found = {**found, "v": v}
        return found
