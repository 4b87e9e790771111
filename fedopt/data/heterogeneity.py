"""How unlike the clients of a partition are, told from their labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelSkew:
    """Label counts of a partition, [clients, classes], and what follows from them for each client."""

    counts: Counts

    @classmethod
    def of(cls, labels: np.ndarray, parts: Sequence[np.ndarray], classes: int) -> LabelSkew:
        return cls(np.stack([np.bincount(labels[part], minlength=classes) for part in parts]))

    @property
    def sizes(self) -> Counts:
        """n_i, [clients]."""
        sizes: Counts = self.counts.sum(axis=1)
        return sizes

    @property
    def distributions(self) -> Floats:
        """q_i, each client's label distribution, [clients, classes]."""
        shares: Floats = self.counts / self.sizes[:, None]
        return shares

    @property
    def entropies(self) -> Floats:
        """-sum_k q_ik log2 q_ik in bits: 0 for a single label, log2(classes) for an even spread."""
        q = self.distributions
        bits: Floats = np.abs(np.sum(q * np.log2(np.where(q > 0, q, 1.0)), axis=1))
        return bits

    @property
    def distances(self) -> Floats:
        """Total variation 1/2 sum_k |q_ik - q_k| from the overall label distribution q: 0 alike, 1 disjoint."""
        overall = self.counts.sum(axis=0) / self.counts.sum()
        variation: Floats = 0.5 * np.abs(self.distributions - overall).sum(axis=1)
        return variation
