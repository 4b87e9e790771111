"""FedSAM: Qu, Li, Duan, Liu, Tang, Lu, "Generalized Federated Learning via Sharpness Aware Minimization",
ICML 2022 (arXiv:2206.02618), Algorithm 1.

    each round, each chosen client i:  y_i <- x,  then local steps  y_i <- y_i - lr * g(y_i + rho g(y_i) / |g(y_i)|)
    server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i

It is FedAvg whose clients use SAM: local.optimizer is "sam" by default, around SGD or any other local.base, and
local.rho its radius; "asam" is the adaptive one. The norm is one over all parameters of a client, not one for each
layer. rho = 0 is FedAvg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fedopt.algorithms.base import Participation
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sam import AroundBase


class FedSAM(FedAvg):
    local_defaults: ClassVar[Mapping[str, Any]] = {"optimizer": "sam"}

    @property
    def fits_own_loops(self) -> bool:
        return False  # whether such a loop takes SAM's steps cannot be known, and without them this is FedAvg

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if not isinstance(local.optimizer, AroundBase):
            return f'fedsam with local.optimizer = "{local.optimizer.name}" is FedAvg; set local.optimizer = "sam"'
        return super().objection(local, terms)
