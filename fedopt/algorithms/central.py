"""Central training, the baseline without clients: all training data in one place.

    each round:  y <- x,  then steps of the local optimizer  y <- y - lr * g(y)  on minibatches of all data
    server:      x <- x + server_lr * (y - x)

A round sees as many samples as the clients that a federated algorithm would select in it, to the sample: the same
seed selects the same clients. It is a federation of one client that has all data, so that everything else is the same
code: optimizer, schedule, `local.state`, records. Accuracy on the clients' test shares is still measured client by
client.

Traps: The number of samples is the same, the number of steps is not: n samples in minibatches of b are n / b steps one
after the other, where clients take them side by side. A comparison at the same number of sequential steps is another
experiment. Bytes are counted as those of its one client, though nothing has to travel.
"""

from __future__ import annotations

from typing import ClassVar

from fedopt.algorithms.base import Participation
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings


class Central(FedAvg):
    pools_data: ClassVar[bool] = True

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if self.weighting == "uniform":
            return 'central counts every sample alike, which is algorithm.weighting = "samples"; leave weighting out'
        return None
