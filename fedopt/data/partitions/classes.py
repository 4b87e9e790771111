"""A fixed number of labels for each client (Li et al. 2022, arXiv:2102.02079)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from fedopt.data.partitions.base import Partition, TrainingSet
from fedopt.errors import PartitionImpossible


class Classes(Partition):
    """Each client holds exactly `classes` labels; the samples of a label are shared evenly by its holders."""

    classes: int = Field(2, ge=1)
    """Labels of each client."""

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        labels, each = np.unique(samples.labels), self.classes
        if each > len(labels):
            raise PartitionImpossible(f"data.classes: {each} a client, but the data have {len(labels)} classes")
        if clients * each < len(labels):
            raise PartitionImpossible(
                f"data.classes: {clients} clients x {each} classes leave some of the {len(labels)} classes to no "
                f"one; at least {-(-len(labels) // clients)} classes a client, or {-(-len(labels) // each)} "
                "clients, would work"
            )
        # Every client takes the labels with the fewest holders so far, ties at random: even, and covering.
        holders: list[list[int]] = [[] for _ in labels]
        for client in rng.permutation(clients):
            fewest = np.lexsort(np.array([rng.random(len(labels)), [len(h) for h in holders]]))
            for chosen in fewest[:each]:
                holders[chosen].append(int(client))
        held: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for label, owners in zip(labels, holders, strict=True):
            of_label = rng.permutation(np.flatnonzero(samples.labels == label))
            for owner, part in zip(owners, np.array_split(of_label, len(owners)), strict=True):
                held[owner].append(part)
        return [np.concatenate(parts) for parts in held]

    @property
    def pieces(self) -> int:
        return self.classes
