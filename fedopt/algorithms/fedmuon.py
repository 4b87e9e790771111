"""FedMuon: Takezawa, Koloskova, Jiang, Stich, "FedMuon: Federated Learning with Bias-corrected LMO-based Optimization",
2025 (arXiv:2509.26337), Algorithm 1.

    each round, each chosen client i:  Y_i <- X, then steps on the matrices of the model:
                                           M_i <- momentum M_i + (1 - momentum) g(Y_i)
                                           Y_i <- Y_i - lr r NewtonSchulz(M_i - C_i + C)
                                       C_i+ <- M_i, from which the client goes on in its next round
    server:                            X <- X + server_lr * sum p_i (Y_i - X) / sum p_i
                                       C <- C + sum p_i (C_i+ - C_i)

Orthogonalization is not linear: the mean of the clients' orthogonalized matrices is not the orthogonalized mean, so
plain averaging of Muon's steps ends away from the optimum. With the controls all clients orthogonalize nearly the same
matrix.

Muon sees gradients g - C_i + C here, and its momentum starts at C: then it is M_i - C_i + C after every step, for M_i
starts at C_i. AdamW steps the vectors; it starts anew each round, and their control is the mean raw gradient of the
steps, as in SCAFFOLD.

Algorithm 1 has no Nesterov momentum, which is Muon's default elsewhere. In a partial cohort its server moves by
sum (Y_i - X) / N, which is server_lr = cohort / N here; the default goes all the way to the cohort's mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedopt.algorithms.base import Algorithm, Participation, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.muon import Muon
from fedopt.vectors.layout import RowLayout, Vectors
from fedopt.vectors.totals import Totals


class FedMuon(Algorithm):
    sends_up: ClassVar[tuple[str, ...]] = ("dx", "dc")
    reads_schedule: ClassVar[bool] = True
    local_defaults: ClassVar[Mapping[str, Any]] = {"optimizer": "muon", "nesterov": False}

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if not isinstance(local.optimizer, Muon):
            return (
                f"fedmuon needs the optimizer muon, whose momentum it corrects; {local.optimizer.title} is another one"
            )
        if local.state != "reset":
            return "fedmuon keeps the momentum itself, as the clients' controls; leave local.state at reset"
        return None

    @property
    def needs_one_rate(self) -> bool:
        return False  # it reads the optimizer's momentum, and no rates

    @property
    def needs_mean_gradient(self) -> bool:
        return True

    def server_state(self, x: Tensor) -> Vectors:
        return {"c": torch.zeros_like(x)}

    def client_state(self, x: Tensor) -> Vectors:
        return {"c_i": torch.zeros_like(x)}

    def sends_down(self, server: Vectors) -> Vectors:
        return {"c": server["c"]}

    def begin(self, local: LocalStart) -> Vectors:
        return {"correction": local.down["c"] - local.state["c_i"]}

    def moments(self, local: LocalStart, optimizer: Optimizer) -> Vectors:
        return {"momentum": _matrices_from(local.down["c"], torch.zeros_like(local.x), optimizer, local.layout)}

    def shift(self, prepared: Vectors) -> Tensor:
        return prepared["correction"]

    def finish(self, work: LocalWork) -> Finished:
        assert work.mean_gradient is not None
        assert work.optimizer is not None
        m_i = work.moments["momentum"] - work.prepared["correction"]
        c_i_new = _matrices_from(m_i, work.mean_gradient, work.optimizer, work.layout)
        return Finished(up={"dx": work.displacement, "dc": c_i_new - work.state["c_i"]}, state={"c_i": c_i_new})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x + self.server_lr * totals.mean("dx"), {"c": server["c"] + totals.sum("dc")}


def _matrices_from(rows: Tensor, others: Tensor, optimizer: Optimizer, layout: RowLayout) -> Tensor:
    """`rows` at the entries of matrices that Muon steps, and `others` at the rest."""
    assert isinstance(optimizer, Muon)
    merged = others.clone()
    from_, into = layout.views(rows), layout.views(merged)
    for name in optimizer.matrices(layout):
        into[name].copy_(from_[name])
    return merged
