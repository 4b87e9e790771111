"""How unlike the clients of a partition are, told from their labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelSkew:
    """Label counts of a partition, [clients, classes], and what follows from them for each client."""

    counts: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, parts: Sequence[np.ndarray], classes: int) -> LabelSkew:
        return cls(np.stack([np.bincount(labels[part], minlength=classes) for part in parts]))

    @property
    def sizes(self) -> np.ndarray:
        """n_i, [clients]."""
        return self.counts.sum(axis=1)

    @property
    def distributions(self) -> np.ndarray:
        """q_i, each client's label distribution, [clients, classes]."""
        return self.counts / self.sizes[:, None]

    @property
    def entropies(self) -> np.ndarray:
        """-sum_k q_ik log2 q_ik in bits: 0 for a single label, log2(classes) for an even spread."""
        q = self.distributions
        return -np.sum(q * np.log2(np.where(q > 0, q, 1.0)), axis=1) + 0.0

    @property
    def distances(self) -> np.ndarray:
        """Total variation 1/2 sum_k |q_ik - q_k| from the overall label distribution q: 0 alike, 1 disjoint."""
        overall = self.counts.sum(axis=0) / self.counts.sum()
        return 0.5 * np.abs(self.distributions - overall).sum(axis=1)
