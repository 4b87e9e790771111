"""The clients that the data come with."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedopt.data.partitions.base import Partition, TrainingSet
from fedopt.errors import PartitionImpossible


class Natural(Partition):
    takes_numbers: ClassVar[bool] = True

    @property
    def needs_clients(self) -> bool:
        return True

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        own = samples.natural_clients
        if own is None:
            raise PartitionImpossible(
                "data.partition: natural needs data that name the client of each sample, and these do not; "
                "choose for example dirichlet"
            )
        if len(own) != clients:
            raise PartitionImpossible(
                f"data.clients: the data come with {len(own)} clients, not {clients}; set data.clients to {len(own)} "
                'or leave it out, or spread the samples anew, for example with data.partition = "dirichlet"'
            )
        return list(own)
