"""The clients that the data come with."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fedopt.data.partitions.base import Partition, TrainingSet


class Natural(Partition):
    needs_clients: ClassVar[bool] = True

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        assert samples.natural_clients is not None, "the settings take natural only where the source has clients"
        return list(samples.natural_clients)
