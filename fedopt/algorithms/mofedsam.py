"""MoFedSAM: Qu, Li, Duan, Liu, Tang, Lu, "Generalized Federated Learning via Sharpness Aware Minimization",
ICML 2022 (arXiv:2206.02618), Algorithm 2: FedCM with SAM's gradient.

    each round, each chosen client i:  y_i <- x,  then local steps
                                       g~ <- g(y_i + rho g(y_i) / |g(y_i)|),  on one minibatch
                                       y_i <- y_i - lr * (alpha g~ + (1 - alpha) Delta)
    server:                            x and Delta as in FedCM

alpha is the paper's beta. The perturbation follows the raw gradient: were it left to local.optimizer = "sam", it would
follow the direction that contains Delta. rho = 0 is FedCM.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fedopt.algorithms.fedcm import FedCM
from fedopt.algorithms.local_work import MinibatchGradient
from fedopt.optimizers.sam import ascent
from fedopt.vectors.layout import Vectors


class MoFedSAM(FedCM):
    rho: float = Field(0.05, ge=0)
    """Radius of SAM's perturbation, one norm over all parameters of a client."""

    def gradient(self, at: MinibatchGradient, y: Tensor, prepared: Vectors) -> Tensor:
        perturbed = at(y + ascent(at(y), self.rho, p=2))
        return self.correct(perturbed, y, prepared)
