"""Partitions without any skew of ours: equal random parts, or the clients the data come with."""

from __future__ import annotations

import numpy as np

from fedopt.data.partition import Draw


def iid(draw: Draw) -> list[np.ndarray]:
    """Equal random parts; sizes differ by one at most."""
    return np.array_split(draw.rng.permutation(len(draw.labels)), draw.settings.clients)


def natural(draw: Draw) -> list[np.ndarray]:
    """The clients the data come with."""
    assert draw.natural_clients is not None, "settings admit natural only where the source has clients"
    return list(draw.natural_clients)
