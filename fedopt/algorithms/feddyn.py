"""FedDyn: Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, "Federated Learning Based on Dynamic
Regularization", ICLR 2021 (arXiv:2111.04263), Algorithm 1.

    each round, each chosen client i:  y_i <- a minimizer of  f_i(y) - <h_i, y> + alpha / 2 |y - x|^2,
                                       by local steps from x on  g(y_i) - h_i + alpha (y_i - x)
                                       h_i <- h_i - alpha (y_i - x)
    server:                            h <- h - alpha sum p_i (y_i - x)   over the cohort, where all N p_i add up to 1
                                       x <- x + server_lr * (sum p_i (y_i - x) / sum p_i - h / alpha)   with the new h

h_i estimates grad f_i(x) and h is sum p_i h_i over all N clients, so that a client that was never chosen counts with 0.
At a fixed point of all clients y_i = x, hence h_i = grad f_i(x) and sum p_i grad f_i(x) = 0: the optimum, whatever
optimizer takes the steps. The paper has p_i = 1 / N, which is `weighting = "uniform"`; the default weights by samples,
as for all algorithms here, so that comparisons minimize one objective. The authors' code gives client i the weight
alpha / (N p_i) and takes plain means, which leads to the same optimum by another path. The paper has no server_lr
either: at 1 the rule is the paper's, below 1 the whole step of x is damped.

Traps: h is a sum over all N clients, not over the cohort. An error in h, such as a wrong sign, is hard to see in
accuracies where alpha is small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, Participation, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.algorithms.proximal import overshooting
from fedopt.optimizers.local import LocalSettings
from fedopt.storage.record import Line
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class DynamicRecord(Line):
    """How good the dual variables are. h_i is a client's, h the server's."""

    norm: float | None = None
    """|h| after the round; it goes to 0 where the clients' models agree."""
    gap: float | None = None
    """|h - sum p_i h_i| over all N clients after the round: 0 up to rounding, unless an update was lost."""


class FedDyn(Algorithm):
    alpha: float = Field(0.1, gt=0)
    """The weight of the proximal term, and the step of the dual variables h. The paper chooses among 0.001, 0.01 and
    0.1. A small alpha makes large steps of x, which need long local work to be sound."""

    record: ClassVar[type[Line] | None] = DynamicRecord

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        return overshooting(self.alpha, "algorithm.alpha", local)

    def server_state(self, x: Tensor) -> Vectors:
        return {"h": torch.zeros_like(x)}

    def client_state(self, x: Tensor) -> Vectors:
        return {"h_i": torch.zeros_like(x)}

    def begin(self, local: LocalStart) -> Vectors:
        return {"x": local.x, "h_i": local.state["h_i"]}

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        return gradient - prepared["h_i"] + self.alpha * (y - prepared["x"])

    def finish(self, work: LocalWork) -> Finished:
        h_i_new = work.state["h_i"] - self.alpha * work.displacement
        return Finished(up={"dx": work.displacement}, state={"h_i": h_i_new})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        h_new = server["h"] - self.alpha * totals.sum("dx")
        return x + self.server_lr * (totals.mean("dx") - h_new / self.alpha), {"h": h_new}

    def check(self, server: Vectors, mean_state: Vectors) -> Mapping[str, float]:
        h, mean = server["h"], mean_state["h_i"]
        return {"norm": torch.linalg.vector_norm(h).item(), "gap": torch.linalg.vector_norm(h.to(mean) - mean).item()}
