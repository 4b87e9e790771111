"""DiLoCo: Douillard, Feng, Rusu, Chhaparia, Donchev, Kuncoro, Ranzato, Szlam, Shen, "DiLoCo: Distributed
Low-Communication Training of Language Models", 2023 (arXiv:2311.08105), Algorithm 1.

    each worker:  y_i <- x,  then H steps of AdamW, whose moments the worker keeps from round to round
    server:       D = mean of (y_i - x),   v <- server_momentum v + D
                  x <- x + server_lr (D + server_momentum v)

In the paper every worker takes part in every round, so no moments grow old, and H is hundreds of steps. Its inner rate
is warmed up and decays, its weight decay is 0.1; where workers' data differ, it weights them by their samples too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from fedopt.algorithms.fedavg import FedAvg


class DiLoCo(FedAvg):
    """FedAvg with an outer Nesterov momentum of 0.9, and clients that keep the moments of adamw (local.lr = 0.0004)
    with a weight decay of 0.1."""

    only_server: ClassVar[str] = "sgd"
    server_defaults: ClassVar[Mapping[str, Any]] = {"server_momentum": 0.9, "server_nesterov": True}
    local_defaults: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",
        "lr": 4e-4,
        "weight_decay": 0.1,
        "state": "keep",
    }

    server_lr: float = Field(0.7, gt=0)
    """The outer learning rate."""
