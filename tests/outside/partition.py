"""Samples dealt to the clients in turn, in a random order, some of them to the first client alone."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from fedopt.data.partitions.base import Partition, TrainingSet


class Dealt(Partition):
    first: float = Field(0.3, ge=0, lt=1)
    """The share of all samples that the first client gets before the others get theirs."""

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        order = rng.permutation(len(samples.labels))
        ahead = round(self.first * len(order))
        hands = [order[ahead + client :: clients] for client in range(clients)]
        return [np.concatenate([order[:ahead], hands[0]]), *hands[1:]]
