"""Mime: Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh, "Breaking the centralized barrier for cross-device
federated learning" (Mime), NeurIPS 2021 (arXiv:2008.03606), Algorithm 1.

    each round:                        c <- sum w_i grad f_i(x) over the cohort, an exchange of its own
    each chosen client i:              y_i <- x,  then steps  y_i <- y_i - lr U(g(y_i) - g(x) + c, s),
                                       g(y_i) and g(x) on the same minibatch
    server:                            s <- V(c, s),   x <- x + server_lr * sum w_i (y_i - x)

U, V and s are those of MimeLite. g(x) on another minibatch than g(y_i) would add noise where it should remove it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from fedopt.algorithms.base import SURVEYED, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.algorithms.mimelite import MimeLite
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class Mime(MimeLite):
    sends_up: ClassVar[tuple[str, ...]] = ("dx",)
    surveys: ClassVar[bool] = True

    def begin(self, local: LocalStart) -> Vectors:
        return {**local.down, "x": local.x}

    def gradient(self, at: Callable[[Tensor], Tensor], y: Tensor, prepared: Vectors) -> Tensor:
        return self.correct(at(y) - at(prepared["x"]) + prepared[SURVEYED], y, prepared)

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x + self.server_lr * totals.mean("dx"), self._tracked(server[SURVEYED], server)
