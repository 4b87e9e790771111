"""How much the clients of a partition differ, measured by their labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedopt.storage.record import Line

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class LabelSpread(Line):
    """partition.json, once per run. In a deployment counts are null, because labels do not leave the clients, and where
    targets are numbers."""

    classes: list[str]
    """The classes' names."""
    sizes: list[int]
    """n_i, the samples of each client."""
    clients: list[str] | None = None
    """The clients' names; null unless the clients are those of the data, and the data name them."""
    counts: list[list[int]] | None = None
    """Samples of each client by class."""
    entropy: list[float] | None = None
    """-sum_k q_ik log2 q_ik for each client's label distribution q_i, in bits: 0 for a single label."""
    effective_classes: list[float] | None = None
    """2^entropy, the number of equally frequent classes that have the same entropy."""
    total_variation: list[float] | None = None
    """1/2 sum_k |q_ik - q_k|, the distance from the overall label distribution q: 0 if equal, 1 if disjoint."""
    jensen_shannon: list[float] | None = None
    """sqrt of the Jensen-Shannon divergence (base 2) between q_i and q: 0 if equal, 1 if disjoint."""


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
    def effective_classes(self) -> Floats:
        """2^entropy: how many equally frequent classes would have the same entropy."""
        effective: Floats = 2.0**self.entropies
        return effective

    @property
    def divergences(self) -> Floats:
        """Jensen-Shannon distance from q: sqrt(1/2 KL(q_i | m) + 1/2 KL(q | m)) in base 2, with m = (q_i + q) / 2."""
        own, overall = self.distributions, self._overall
        middle = (own + overall) / 2
        halves = _relative_entropy(own, middle) + _relative_entropy(np.broadcast_to(overall, own.shape), middle)
        distance: Floats = np.sqrt(np.maximum(0.0, halves / 2))
        return distance

    def spread(self, names: Sequence[str], clients: Sequence[str] = ()) -> LabelSpread:
        """All of it, as partition.json stores it."""
        return LabelSpread(
            classes=list(names) or [str(label) for label in range(self.counts.shape[1])],
            sizes=self.sizes.tolist(),
            clients=list(clients) or None,
            counts=self.counts.tolist(),
            entropy=self.entropies.tolist(),
            effective_classes=self.effective_classes.tolist(),
            total_variation=self.distances.tolist(),
            jensen_shannon=self.divergences.tolist(),
        )

    @property
    def _overall(self) -> Floats:
        """q, the label distribution of all clients together, [classes]."""
        share: Floats = self.counts.sum(axis=0) / self.counts.sum()
        return share

    @property
    def distances(self) -> Floats:
        """Total variation 1/2 sum_k |q_ik - q_k| from the overall label distribution q: 0 alike, 1 disjoint."""
        variation: Floats = 0.5 * np.abs(self.distributions - self._overall).sum(axis=1)
        return variation


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    """KL(p | q) in bits for each row; 0 log 0 is 0."""
    there = p > 0
    terms = np.where(there, p * np.log2(np.where(there, p, 1.0) / np.where(there, q, 1.0)), 0.0)
    rows: Floats = terms.sum(axis=1)
    return rows
