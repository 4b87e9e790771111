"""Dividing the training set among the clients: a pure function of labels, settings and seed."""

from __future__ import annotations

import numpy as np

from fedopt.data.dataset import Dataset
from fedopt.data.partitions.base import TrainingSet
from fedopt.data.settings import DataSettings
from fedopt.errors import PartitionImpossible
from fedopt.seeding import Purpose, stream

DRAWS = 100
"""How often a random partition is redrawn before it is called impossible."""

SEARCH_DRAWS = 5
"""How often each remedy is tried before it is offered."""


def partition(dataset: Dataset, settings: DataSettings, seed: int) -> list[np.ndarray]:
    """The sorted training indices of each client; together they are the training set, each sample once.

    A draw in which some client has fewer than `min_samples` is repeated, DRAWS times at most; then
    PartitionImpossible says what would work.
    """
    labels = dataset.y_train.cpu().numpy()
    if dataset.has_numbers:
        if not settings.partition.takes_numbers:
            raise PartitionImpossible(
                f"data.partition: {settings.partition.name} spreads classes over clients, and the data have numbers to "
                "predict; choose iid, quantity, shards, similarity or, for data with clients of their own, natural"
            )
        labels = labels[:, 0]
    return split_labels(labels, settings, seed, dataset.natural_clients)


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
    samples, best = TrainingSet(labels, natural_clients), -1
    for attempt in range(DRAWS):
        parts = _draw(samples, settings, seed, attempt)
        smallest = min(len(part) for part in parts)
        if smallest >= settings.min_samples:
            return [np.sort(part) for part in parts]
        best = max(best, smallest)
    remedies = _remedies(samples, settings, seed, best)
    raise PartitionImpossible(
        f"data.partition: none of {DRAWS} draws of {settings.partition.name} gave each of {settings.clients} "
        f"clients {settings.min_samples} samples (the best had {best} at the smallest client); "
        f"what would work: {', or '.join(remedies)}"
    )


def _draw(samples: TrainingSet, settings: DataSettings, seed: int, attempt: int) -> list[np.ndarray]:
    return settings.partition.draw(samples, settings.clients, stream(seed, Purpose.PARTITION, attempt))


def _remedies(samples: TrainingSet, settings: DataSettings, seed: int, best: int) -> list[str]:
    """Changes of one key each that were tried and did meet `min_samples`."""
    if settings.partition.needs_clients:
        return [*([f"data.min_samples = {best}"] if best >= 1 else []), "data.partition = iid"]
    fewer = ({"clients": settings.clients >> k} for k in range(1, settings.clients.bit_length()))
    remedies: list[str] = []
    for changes in (settings.partition.milder(), fewer):
        for change in changes:
            if _works(samples, settings.model_copy(update=change), seed):
                remedies += [f"data.{key} = {_short(value)}" for key, value in change.items()]
                break
    if best >= 1:
        remedies.append(f"data.min_samples = {best}")
    return [*remedies, "data.partition = iid"]


def _works(samples: TrainingSet, settings: DataSettings, seed: int) -> bool:
    for attempt in range(SEARCH_DRAWS):
        try:
            parts = _draw(samples, settings, seed, attempt)
        except PartitionImpossible:  # so many clients, say, as there are not labels for
            return False
        if min(len(part) for part in parts) >= settings.min_samples:
            return True
    return False


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
