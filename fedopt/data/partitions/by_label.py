"""Partitions in which a client sees only a few labels."""

from __future__ import annotations

import numpy as np

from fedopt.data.partition import Draw
from fedopt.errors import PartitionImpossible


def shards(draw: Draw) -> list[np.ndarray]:
    """Samples sorted by label, cut into clients * shards pieces, `shards` pieces to each (McMahan 2017)."""
    clients, each = draw.settings.clients, draw.settings.shards
    if clients * each > len(draw.labels):
        raise PartitionImpossible(
            f"data.shards: {clients} clients x {each} shards need at least {clients * each} samples, "
            f"there are {len(draw.labels)}"
        )
    shuffled = draw.rng.permutation(len(draw.labels))  # so that equal labels lie in random order
    by_label = shuffled[np.argsort(draw.labels[shuffled], kind="stable")]
    pieces = np.array_split(by_label, clients * each)
    dealt = draw.rng.permutation(clients * each).reshape(clients, each)
    return [np.concatenate([pieces[piece] for piece in hand]) for hand in dealt]


def classes(draw: Draw) -> list[np.ndarray]:
    """Each client holds exactly `classes` labels; the samples of a label are shared evenly by its holders."""
    clients, each = draw.settings.clients, draw.settings.classes
    labels = np.unique(draw.labels)
    if each > len(labels):
        raise PartitionImpossible(f"data.classes: {each} a client, but the data have {len(labels)} classes")
    if clients * each < len(labels):
        raise PartitionImpossible(
            f"data.classes: {clients} clients x {each} classes leave some of the {len(labels)} classes to no "
            f"one; at least {-(-len(labels) // clients)} classes a client, or {-(-len(labels) // each)} "
            "clients, would work"
        )
    # Every client takes the labels with the fewest holders so far, ties at random: even, and covering.
    holders: list[list[int]] = [[] for _ in labels]
    for client in draw.rng.permutation(clients):
        fewest = np.lexsort(np.array([draw.rng.random(len(labels)), [len(h) for h in holders]]))
        for chosen in fewest[:each]:
            holders[chosen].append(int(client))
    held: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label, owners in zip(labels, holders, strict=True):
        samples = draw.rng.permutation(np.flatnonzero(draw.labels == label))
        for owner, part in zip(owners, np.array_split(samples, len(owners)), strict=True):
            held[owner].append(part)
    return [np.concatenate(parts) for parts in held]
