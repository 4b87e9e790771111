"""Label skew from a Dirichlet distribution (Hsu, Qi, Brown 2019, arXiv:1909.06335, in the per-class form of Yurochkin
et al. 2019, arXiv:1905.12022). Small alpha means strong skew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from fedopt.data.partitions.base import Partition, TrainingSet


class Dirichlet(Partition):
    """Each class is cut over the clients in proportions from Dirichlet(alpha)."""

    alpha: float = Field(0.1, gt=0)
    """Skew: small alpha leaves each class to few clients, large alpha approaches iid."""

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        held: list[list[np.ndarray]] = [[] for _ in range(clients)]
        sizes = np.zeros(clients, dtype=np.int64)
        for label in np.unique(samples.labels):
            of_label = rng.permutation(np.flatnonzero(samples.labels == label))
            shares = proportions(self.alpha, self.open_to(sizes, len(samples.labels)), rng)
            for client, part in enumerate(cut(of_label, shares)):
                held[client].append(part)
                sizes[client] += len(part)
        return [np.concatenate(parts) for parts in held]

    def open_to(self, sizes: np.ndarray, samples: int) -> np.ndarray:
        """Which clients get some of the next class, [clients], where they hold `sizes` of all `samples` so far."""
        return np.ones(len(sizes), dtype=bool)

    def milder(self) -> Iterator[dict[str, Any]]:
        return doublings(self.alpha)

    @property
    def title(self) -> str:
        return f"{self.name}({self.alpha:g})"


def doublings(alpha: float) -> Iterator[dict[str, Any]]:
    """Changes of alpha to milder skew, rounded as they are printed."""
    return ({"alpha": float(f"{alpha * 2**k:g}")} for k in range(1, 15))


def proportions(alpha: float, open_to: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dirichlet(alpha) over all clients, restricted to those it is open to, [clients]."""
    drawn: np.ndarray = rng.dirichlet(np.full(len(open_to), alpha)) * open_to
    if not np.isfinite(drawn).all() or drawn.sum() <= 0:
        # At tiny alpha every gamma variate can underflow: the limit is all to one client.
        drawn = np.zeros(len(open_to))
        drawn[rng.choice(np.flatnonzero(open_to))] = 1.0
    drawn /= drawn.sum()
    return drawn


def cut(samples: np.ndarray, shares: np.ndarray) -> list[np.ndarray]:
    """The samples in consecutive parts, one for each client."""
    return np.split(samples, np.cumsum(counts_of(len(samples), shares))[:-1])


def counts_of(samples: int, proportions: np.ndarray) -> np.ndarray:
    """How many of the samples each client gets, [clients]: its proportion rounded down, or up where the remainder is
    largest (ties to the first client). A client with proportion 0 gets none."""
    exact = proportions * samples
    counts: np.ndarray = np.floor(exact).astype(np.int64)
    order = np.lexsort((counts - exact, proportions == 0))  # clients that may get one, the largest remainder first
    counts[order[: samples - counts.sum()]] += 1
    return counts
