"""Equal random parts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedopt.data.partitions.base import Partition, TrainingSet


class Iid(Partition):
    """Sizes differ by one at most."""

    takes_numbers: ClassVar[bool] = True

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        return np.array_split(rng.permutation(len(samples.labels)), clients)
