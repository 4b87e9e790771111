"""Partitions drawn from a Dirichlet distribution: label skew (Hsu, Qi, Brown 2019, arXiv:1909.06335, in the
per-class form of Yurochkin et al. 2019, arXiv:1905.12022) and size skew. Small alpha means strong skew."""

from __future__ import annotations

import numpy as np

from fedopt.data.partition import Draw


def dirichlet(draw: Draw) -> list[np.ndarray]:
    """Each class is cut over the clients in proportions from Dirichlet(alpha)."""
    return _class_by_class(draw, stop_at_fair_share=False)


def dirichlet_balanced(draw: Draw) -> list[np.ndarray]:
    """The same, but a client that already holds its fair share n / N gets no more of a class."""
    return _class_by_class(draw, stop_at_fair_share=True)


def quantity(draw: Draw) -> list[np.ndarray]:
    """Sizes from Dirichlet(alpha), labels at random: clients differ in how much they hold, not in what."""
    clients = draw.settings.clients
    proportions = _proportions(draw, np.ones(clients, dtype=bool))
    return _cut(draw.rng.permutation(len(draw.labels)), proportions)


def _class_by_class(draw: Draw, *, stop_at_fair_share: bool) -> list[np.ndarray]:
    clients, fair = draw.settings.clients, len(draw.labels) / draw.settings.clients
    held: list[list[np.ndarray]] = [[] for _ in range(clients)]
    sizes = np.zeros(clients, dtype=np.int64)
    for label in np.unique(draw.labels):
        samples = draw.rng.permutation(np.flatnonzero(draw.labels == label))
        # Some client is always below its fair share: together they would else hold more than there is.
        open_to = sizes < fair if stop_at_fair_share else np.ones(clients, dtype=bool)
        for client, part in enumerate(_cut(samples, _proportions(draw, open_to))):
            held[client].append(part)
            sizes[client] += len(part)
    return [np.concatenate(parts) for parts in held]


def _proportions(draw: Draw, open_to: np.ndarray) -> np.ndarray:
    """Dirichlet(alpha) over all clients, restricted to those it is open to."""
    drawn: np.ndarray = draw.rng.dirichlet(np.full(len(open_to), draw.settings.alpha)) * open_to
    if not np.isfinite(drawn).all() or drawn.sum() <= 0:
        # At tiny alpha every gamma variate can underflow: the limit is all to one client.
        drawn = np.zeros(len(open_to))
        drawn[draw.rng.choice(np.flatnonzero(open_to))] = 1.0
    drawn /= drawn.sum()
    return drawn


def _cut(samples: np.ndarray, proportions: np.ndarray) -> list[np.ndarray]:
    return np.split(samples, np.cumsum(counts_of(len(samples), proportions))[:-1])


def counts_of(samples: int, proportions: np.ndarray) -> np.ndarray:
    """How many of the samples each client gets, [clients]: its proportion rounded down, or up where the remainder is
    largest (ties to the first client). A client with proportion 0 gets none."""
    exact = proportions * samples
    counts: np.ndarray = np.floor(exact).astype(np.int64)
    order = np.lexsort((counts - exact, proportions == 0))  # clients that may get one, the largest remainder first
    counts[order[: samples - counts.sum()]] += 1
    return counts
