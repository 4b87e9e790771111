"""An algorithm of the tests' own: clients go on from their own last models, and use them themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.vectors.layout import Vectors


class OwnModels(FedAvg):
    """Each client begins midway between x and where its last accepted steps led."""

    def client_state(self, x: Tensor) -> Vectors:
        return {"moved": torch.zeros_like(x)}

    def start(self, local: LocalStart) -> Tensor:
        return local.x + 0.5 * local.state["moved"]

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement}, state={"moved": work.displacement})

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        return x + state["moved"]
