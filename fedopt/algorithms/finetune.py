"""FedAvg with fine-tuned models: Wang, Mathews, Kiddon, Eichner, Beaufays, Ramage, "Federated Evaluation of On-device
Personalization", 2019 (arXiv:1910.10252): a client personalizes the global model by training it on its own data.

    each round, each chosen client i:  y_i <- x,  then local steps  y_i <- y_i - lr * g_i(y_i);  v_i <- y_i
    server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i

The personal model v_i is the client's own model after its last local work, to the bit. It is fine-tuned from the global
model of the round in which the client took part last, with the steps and rates of that round.

Traps: v_i is as old as the client's last round, so under partial participation it is not a fine-tuned version of the
present x. A client that has not been selected yet uses x. The global model is that of FedAvg to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import Finished, LocalWork
from fedopt.vectors.layout import Vectors


class FineTune(FedAvg):
    def client_state(self, x: Tensor) -> Vectors:
        return {"v": torch.zeros_like(x)}  # a model of zeros alone stands for none

    def finish(self, work: LocalWork) -> Finished:
        return Finished(up={"dx": work.displacement}, state={"v": work.y.clone()})

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        return state["v"] if bool(state["v"].any()) else x
