"""Shards of the sorted training set: McMahan et al. 2017 (arXiv:1602.05629)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedopt.data.partitions.base import Partition, TrainingSet
from fedopt.errors import PartitionImpossible


class Shards(Partition):
    """Samples sorted by label, cut into clients * shards pieces, `shards` pieces to each client."""

    takes_numbers: ClassVar[bool] = True

    shards: int = Field(2, ge=1)
    """Shards of each client."""

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        n, count = len(samples.labels), clients * self.shards
        if count > n:
            raise PartitionImpossible(
                f"data.shards: {clients} clients x {self.shards} shards need at least {count} samples, there are {n}"
            )
        shuffled = rng.permutation(n)  # so that equal labels lie in random order
        by_label = shuffled[np.argsort(samples.labels[shuffled], kind="stable")]
        pieces = np.array_split(by_label, count)
        dealt = rng.permutation(count).reshape(clients, self.shards)
        return [np.concatenate([pieces[piece] for piece in hand]) for hand in dealt]

    @property
    def pieces(self) -> int:
        return self.shards
