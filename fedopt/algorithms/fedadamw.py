"""FedAdamW: Liu, Shang, Liu, Tian, Liu, Liu, Zhu, Lin, "FedAdamW: A Communication-Efficient Optimizer with Convergence
and Generalization Guarantees for Federated Large Models", AAAI 2026 (arXiv:2510.27486).

    each round, each chosen client i:  y <- x,  m <- 0,  v <- v_bar
        in its k-th step of the round, the t-th since v was 0:
            m <- beta_1 m + (1 - beta_1) g,   v <- beta_2 v + (1 - beta_2) g^2
            y <- y - lr (m / (1 - beta_1^k) / (sqrt(v / (1 - beta_2^t)) + eps) + alpha G + weight_decay y)
    server:  x <- x + server_lr * sum p_i (y_i - x),  v_bar <- sum p_i block means of v_i,
             G <- -sum p_i (y_i - x) / (K lr)

G is added behind the preconditioner, and m and v never see it. It contains alpha times the G before, so that a steady
direction adds up to 1 / (1 - alpha) of itself.

The moments are the business of `local.state`, here block-v by default. The two counts are not the same: with t for m as
well, the first steps of each round are up to 1 / (1 - beta_1) times too short; with k for v, v_bar is divided by
1 - beta_2^k, and these steps are too short as well. The authors' code takes one count for both, and averages v itself,
which is `local.state` = average-v here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Participation
from fedopt.algorithms.global_direction import AlongGlobalDirection
from fedopt.optimizers.local import LocalSettings
from fedopt.vectors.layout import Vectors


class FedAdamW(AlongGlobalDirection):
    alpha: float = Field(0.5, ge=0, lt=1)
    """The weight of the global direction G beside the optimizer's own; 0 leaves it out."""

    local_defaults: ClassVar[Mapping[str, Any]] = {"optimizer": "adamw", "weight_decay": 0.01, "state": "block-v"}

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if local.optimizer.second_moment_names:
            return None
        return f"fedadamw needs an adaptive optimizer, such as adamw; {local.optimizer.title} is not adaptive"

    def push(self, prepared: Vectors) -> Tensor:
        return self.alpha * prepared["G"]
