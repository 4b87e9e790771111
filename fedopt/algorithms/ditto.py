"""Ditto: Li, Hu, Beirami, Smith, "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021
(arXiv:2012.04221), Algorithm 1, with FedAvg as the solver of its global objective.

    each round, each chosen client i:  w_i <- x,  then local steps  w_i <- w_i - lr * g_i(w_i)
                                       v_i <- v_i - lr * (g_i(v_i) + lam (v_i - x))
    server:                            x <- x + server_lr * sum p_i (w_i - x) / sum p_i

x in the proximal term is the model that came down, the same in all steps of the round. A step of v_i follows each step
of w_i, on the same minibatch and at the same rate, so that both take as many steps. All v_i start at the initial x.

Traps: v_i is pulled towards x and not towards w_i, which moves. The optimizer, its momentum and `local.clip` are those
of w_i; v_i takes the plain steps above, which need lr (L + lam) < 2 for gradients with Lipschitz constant L. The global
model is that of FedAvg, whatever lam is. A client that has not been selected yet still has the initial model.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork, MinibatchGradient
from fedopt.optimizers.base import subtract
from fedopt.vectors.layout import Vectors


class Ditto(FedAvg):
    lam: float = Field(1.0, ge=0)
    """λ, how strongly a personal model is pulled towards the global one; 0 leaves it to the client's own data. In the
    paper clients choose among 0.1, 1 and 2 by validation."""

    def client_state(self, x: Tensor) -> Vectors:
        return {"v": x}

    def begin(self, local: LocalStart) -> Vectors:
        return {"v": local.state["v"].clone(), "x": local.x}

    def gradient(self, at: MinibatchGradient, y: Tensor, prepared: Vectors) -> Tensor:
        found, v = at(y), prepared["v"]
        if at.is_first:  # an optimizer that evaluates twice in a step steps v once
            subtract(v, at.rate, at(v) + self.lam * (v - prepared["x"]))
        return found

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement}, state={"v": work.prepared["v"]})

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        return state["v"]
