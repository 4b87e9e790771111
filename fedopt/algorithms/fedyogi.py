"""FedYogi: Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021
(arXiv:2003.00295), Algorithm 2.

    clients as in FedAvg;  D = sum p_i (y_i - x) / sum p_i
    server:  m <- beta_1 m + (1 - beta_1) D,   v <- v - (1 - beta_2) D^2 sign(v - D^2)
             x <- x + server_lr m / (sqrt(v) + server_tau)

v starts at server_tau^2, and there is no bias correction. The paper takes beta_1 = 0.9, beta_2 = 0.99 and
server_tau = 1e-3. server_lr depends on the task; it wants tuning together with local.lr.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.server_step import stepped_by
from fedopt.composite import FamilyField


class FedYogi(FedAvg):
    """FedAvg with server = "yogi" and server_lr = 0.01."""

    families: ClassVar[tuple[FamilyField, ...]] = stepped_by("yogi")
    only_server: ClassVar[str] = "yogi"

    server_lr: float = Field(0.01, gt=0)
    """The rate of the server's steps: an entry of x whose update is steady moves by about this much a round."""
