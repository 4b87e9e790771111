"""SCAFFOLD: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning", ICML 2020 (arXiv:1910.06378), Algorithm 1.

    each round, each chosen client i:  y_i <- x,  then steps of any optimizer on  g(y_i) - c_i + c
                                       c_i+ <- the mean of the raw g of these steps  (mean-gradient)
                                          or   grad f_i(x) over all its data         (full-gradient, option I)
    server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i
                                       c <- c + sum p_i (c_i+ - c_i)

All controls start at zero. For plain SGD the mean gradient is the paper's option II,
c_i - c + (x - y_i) / (K lr), since the displacement is lr times the sum of the corrected gradients. Under
momentum, Adam, SAM or clipping it is not: the displacement then is no multiple of a gradient, and dividing
it diverges. The mean gradient stays what a control is meant to be. The p_i are the same in both lines of
the server; otherwise the fixed point belongs to no one objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedopt.algorithms.base import Algorithm, Finished, LocalWork
from fedopt.vectors.exact_sum import Totals
from fedopt.vectors.layout import Vectors


class Scaffold(Algorithm):
    name: Literal["scaffold"] = "scaffold"
    variant: Literal["mean-gradient", "full-gradient"] = "mean-gradient"
    tells: ClassVar[frozenset[str]] = frozenset({"error", "distance"})

    @property
    def averages_gradients(self) -> bool:
        return self.variant == "mean-gradient"

    def server_keeps(self, x: Tensor) -> Vectors:
        return {"c": torch.zeros_like(x)}

    def client_keeps(self, x: Tensor) -> Vectors:
        return {"c_i": torch.zeros_like(x)}

    def sends_down(self, server: Vectors) -> Vectors:
        return {"c": server["c"]}

    def begin(self, x: Tensor, down: Vectors, kept: Vectors) -> Vectors:
        return {"correction": down["c"] - kept["c_i"]}

    def shift(self, local: Vectors) -> Tensor:
        return local["correction"]

    def finish(self, work: LocalWork) -> Finished:
        c_i_new = work.full_gradient() if work.mean_gradient is None else work.mean_gradient
        return Finished(
            up={"dx": work.displacement, "dc": c_i_new - work.kept["c_i"]},
            keep={"c_i": c_i_new},
        )

    def advance(self, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        x_new = x + self.server_lr * totals.mean("dx")
        c_new = server["c"] + totals.sum("dc")
        return x_new, {"c": c_new}

    def tell(self, work: LocalWork, gradient: Tensor | None) -> Mapping[str, Tensor]:
        c_i = work.kept["c_i"]
        told = {"distance": torch.linalg.vector_norm(work.began["correction"], dim=1)}
        if gradient is not None:
            told["error"] = (c_i - gradient).square().sum(1) / gradient.square().sum(1)
        return told

    def check(self, server: Vectors, mean_kept: Vectors) -> Mapping[str, float]:
        return {"gap": torch.linalg.vector_norm(server["c"].to(mean_kept["c_i"]) - mean_kept["c_i"]).item()}
