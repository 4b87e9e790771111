"""A partition: which training samples each client holds. A pure function of labels, settings and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from fedopt.data import PARTITIONS
from fedopt.data.dataset import Dataset
from fedopt.data.settings import PARTITION_KEYS, DataSettings
from fedopt.errors import PartitionImpossible
from fedopt.seeding import Purpose, stream

DRAWS = 100
"""How often a random partition is redrawn before it is called impossible."""

SEARCH_DRAWS = 5
"""How often each remedy is tried before it is offered."""


@dataclass(frozen=True)
class Draw:
    """What one draw of a partition may read."""

    labels: np.ndarray
    settings: DataSettings
    rng: np.random.Generator
    natural_clients: tuple[np.ndarray, ...] | None = None


Rule = Callable[[Draw], list[np.ndarray]]


def partition(dataset: Dataset, settings: DataSettings, seed: int) -> list[np.ndarray]:
    """The sorted training indices of each client; together they are the training set, each sample once.

    A draw in which some client has fewer than `min_samples` is repeated, DRAWS times at most; then
    PartitionImpossible says what would work.
    """
    return split_labels(dataset.y_train.cpu().numpy(), settings, seed, dataset.natural_clients)


def split_labels(
    labels: np.ndarray,
    settings: DataSettings,
    seed: int,
    natural_clients: tuple[np.ndarray, ...] | None = None,
) -> list[np.ndarray]:
    """`partition` for bare labels."""
    needed = settings.clients * settings.min_samples
    if needed > len(labels):
        raise PartitionImpossible(
            f"data.min_samples: {settings.clients} clients x {settings.min_samples} samples need {needed}, "
            f"the training set has {len(labels)}"
        )
    best = -1
    for attempt in range(DRAWS):
        parts = _draw(labels, settings, seed, attempt, natural_clients)
        smallest = min(len(part) for part in parts)
        if smallest >= settings.min_samples:
            return [np.sort(part) for part in parts]
        best = max(best, smallest)
    remedies = _remedies(labels, settings, seed, best)
    raise PartitionImpossible(
        f"data.partition: none of {DRAWS} draws of {settings.partition} gave each of {settings.clients} "
        f"clients {settings.min_samples} samples (the best had {best} at the smallest client); "
        f"what would work: {', or '.join(remedies)}"
    )


def _draw(
    labels: np.ndarray,
    settings: DataSettings,
    seed: int,
    attempt: int,
    natural_clients: tuple[np.ndarray, ...] | None,
) -> list[np.ndarray]:
    rule = cast(Rule, PARTITIONS.load(settings.partition))
    rng = stream(seed, Purpose.PARTITION, attempt)
    return rule(Draw(labels, settings, rng, natural_clients))


def _remedies(labels: np.ndarray, settings: DataSettings, seed: int, best: int) -> list[str]:
    """Changes of one key each that were tried and did meet `min_samples`."""

    def works(**changes: object) -> bool:
        changed = settings.model_copy(update=changes)
        for attempt in range(SEARCH_DRAWS):
            parts = _draw(labels, changed, seed, attempt, None)
            if min(len(part) for part in parts) >= settings.min_samples:
                return True
        return False

    remedies: list[str] = []
    if settings.partition == "natural":
        return [f"data.min_samples = {best}", "data.partition = iid"]
    if settings.partition in PARTITION_KEYS["alpha"]:
        alphas = [settings.alpha * 2**k for k in range(1, 15)]
        remedies += [f"data.alpha = {alpha:g}" for alpha in alphas if works(alpha=float(f"{alpha:g}"))][:1]
    halves = [settings.clients >> k for k in range(1, settings.clients.bit_length())]
    remedies += [f"data.clients = {clients}" for clients in halves if works(clients=clients)][:1]
    if best >= 1:
        remedies.append(f"data.min_samples = {best}")
    return [*remedies, "data.partition = iid"]
