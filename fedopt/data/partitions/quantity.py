"""Size skew: clients differ in how much they hold, not in what (Li et al. 2022, arXiv:2102.02079)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from fedopt.data.partitions.base import Partition, TrainingSet
from fedopt.data.partitions.dirichlet import cut, doublings, proportions


class Quantity(Partition):
    """Sizes from Dirichlet(alpha), labels at random. Small alpha means strong skew."""

    takes_numbers: ClassVar[bool] = True

    alpha: float = Field(0.1, gt=0)
    """Skew: small alpha leaves most samples to few clients, large alpha approaches equal sizes."""

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        shares = proportions(self.alpha, np.ones(clients, dtype=bool), rng)
        return cut(rng.permutation(len(samples.labels)), shares)

    def milder(self) -> Iterator[dict[str, Any]]:
        return doublings(self.alpha)

    @property
    def title(self) -> str:
        return f"{self.name}({self.alpha:g})"
