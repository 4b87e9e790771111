"""FedLADA: Sun, Shen, Sun, Ding, Tao, "Efficient Federated Learning via Local Adaptive Amended Optimizer with Linear
Speedup", TPAMI 2023 (arXiv:2308.00522).

    each round, each chosen client i:  y <- x,  m <- 0,  v <- v_max <- v_bar
        m <- beta_1 m + (1 - beta_1) g,   v <- beta_2 v + (1 - beta_2) g^2,   v_max <- max(v_max, v)
        y <- y - lr (alpha m / sqrt(v_max) + (1 - alpha) G)
    server:  x <- x + server_lr * sum p_i (y_i - x),  v_bar <- sum p_i v_max_i,  G <- -sum p_i (y_i - x) / (K lr)

v_bar starts at eps^2. G is the mean of what the clients' steps were, so that it is a running mean of local directions
with weight alpha for the newest. Local steps are those of `local.optimizer`, amsgrad by default, whose v_max travels
under `local.state` = average-v.

alpha scales the local part alone: where G is 0, in the first round, steps are alpha times as long.
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


class FedLADA(AlongGlobalDirection):
    alpha: float = Field(0.5, gt=0, le=1)
    """The weight of a client's own direction; the global direction G has the rest. 1 leaves G out. The authors of
    FedAdamW compare with 0.1."""

    local_defaults: ClassVar[Mapping[str, Any]] = {"optimizer": "amsgrad", "state": "average-v"}

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if local.optimizer.second_moment_names:
            return None
        return f"fedlada needs an adaptive optimizer, such as amsgrad; {local.optimizer.title} is not adaptive"

    @property
    def step_scale(self) -> float:
        return self.alpha

    def push(self, prepared: Vectors) -> Tensor:
        return (1 - self.alpha) * prepared["G"]
