"""FedLESAM: Fan, Hu, Yao, Niu, Zhang, Sugiyama, Wang, "Locally Estimated Global Perturbations are Better than Local
Perturbations for Federated Sharpness-aware Minimization", ICML 2024 (arXiv:2405.18890), Algorithm 1.

    each round, each chosen client i:  eps_i <- rho (x_before_i - x) / |x_before_i - x|
                                       y_i <- x,  then local steps  y_i <- y_i - lr * g(y_i + eps_i)
                                       x_before_i <- x
    server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i

x_before_i is the model that client i received when it last took part. The server moved from there to x, so x_before - x
stands for the global gradient, along which SAM ascends: x - x_before would descend. A step costs one gradient where SAM
needs two. A client that takes part for the first time has received nothing before and is not perturbed; neither is one
whose x has not changed. Since no gradient is computed at y_i, the training loss in the records is the one at
y_i + eps_i. (The authors' code takes the server's last step for all clients, and a sum of the layers' norms.)
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Participation
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork, MinibatchGradient
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sam import AroundBase, ascent
from fedopt.vectors.layout import Vectors

NOTHING = torch.inf
"""Entries of x_before of a client that has received no model yet. No value of a model can stand for that: a model may
well start at zero."""


class FedLESAM(FedAvg):
    rho: float = Field(0.05, ge=0)
    """Radius of the perturbation, one norm over all parameters; 0 is FedAvg."""

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if isinstance(local.optimizer, AroundBase):
            return "fedlesam perturbs by itself, and local.optimizer would perturb again; give its local.base instead"
        return super().objection(local, terms)

    def client_state(self, x: Tensor) -> Vectors:
        return {"x_before": torch.full_like(x, NOTHING)}

    def begin(self, local: LocalStart) -> Vectors:
        back = local.state["x_before"] - local.x
        known = back.isfinite().all(dim=1, keepdim=True)
        return {"eps": ascent(torch.where(known, back, torch.zeros_like(back)), self.rho, p=2)}

    def gradient(self, at: MinibatchGradient, y: Tensor, prepared: Vectors) -> Tensor:
        return at(y + prepared["eps"])

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement}, state={"x_before": work.x.expand_as(work.y)})
