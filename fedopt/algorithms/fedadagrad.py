"""FedAdagrad: Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR
2021 (arXiv:2003.00295), Algorithm 2.

    clients as in FedAvg;  D = sum p_i (y_i - x) / sum p_i
    server:  m <- beta_1 m + (1 - beta_1) D,   v <- v + D^2
             x <- x + server_lr m / (sqrt(v) + server_tau)

v starts at server_tau^2 and only grows, so the steps shrink. The paper takes beta_1 = 0 and server_tau = 1e-3.
server_lr depends on the task; it wants tuning together with local.lr.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.server_step import stepped_by
from fedopt.composite import FamilyField


class FedAdagrad(FedAvg):
    """FedAvg with server = "adagrad" and server_lr = 0.1."""

    families: ClassVar[tuple[FamilyField, ...]] = stepped_by("adagrad")
    only_server: ClassVar[str] = "adagrad"

    server_lr: float = Field(0.1, gt=0)
    """The rate of the server's steps: an entry of x moves by at most this much a round, and less and less."""
