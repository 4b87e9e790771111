"""Equal random parts."""

from __future__ import annotations

import numpy as np

from fedopt.data.partitions.base import Partition, TrainingSet


class Iid(Partition):
    """Sizes differ by one at most."""

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(rng.permutation(len(samples.labels)), clients)
