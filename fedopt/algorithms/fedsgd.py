"""FedSGD: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017 (arXiv:1602.05629), Section 2: FedAvg with one step on all of a client's data.

    each chosen client i:  y_i <- x - lr grad f_i(x)
    server:                x <- x + server_lr * sum p_i (y_i - x) / sum p_i,   a step along the cohort's mean gradient
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fedopt.algorithms.base import Participation
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings


class FedSGD(FedAvg):
    """FedAvg with local.steps = 1 and local.batch_size = "full"; with a number there, one minibatch a round."""

    local_defaults: ClassVar[Mapping[str, Any]] = {"steps": 1, "batch_size": "full"}

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if local.steps == 1 or (local.epochs == 1 and local.batch_size == "full"):
            return None
        return "fedsgd takes one local step a round; leave out local.epochs and local.steps, or choose fedavg"
