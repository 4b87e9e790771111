"""FedAvgM: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019 (arXiv:1909.06335), Section 4.3.

    clients as in FedAvg;  D = sum p_i (y_i - x) / sum p_i
    server:  v <- server_momentum v + D
             x <- x + server_lr v,   or with server_nesterov  x <- x + server_lr (D + server_momentum v)

Momentum is undamped: server_momentum = 0.9 moves x ten times as far as FedAvg once D is steady, so a smaller local.lr
or server_lr goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fedopt.algorithms.fedavg import FedAvg


class FedAvgM(FedAvg):
    """FedAvg with server = "sgd" and server_momentum = 0.9."""

    only_server: ClassVar[str] = "sgd"
    server_defaults: ClassVar[Mapping[str, Any]] = {"server_momentum": 0.9}
