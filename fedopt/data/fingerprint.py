"""Fingerprints of a run's data: they are equal if two runs train on the same samples with the same partition.

A run stores them in fingerprint.json. They do not depend on paths, device or dtype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from fedopt.data.dataset import Dataset
from fedopt.storage.record import Line


class Fingerprint(Line):
    """fingerprint.json."""

    data: str = Field(pattern="^[0-9a-f]{64}$")
    """sha256 over training and test samples and their labels; of a deployed run, over those that the server has."""
    partition: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """sha256 over the training samples' numbers of each client; null in a deployment, where clients know their own."""


def fingerprint_data(dataset: Dataset) -> str:
    """sha256 over shapes, types and bytes of all four tensors, on the CPU and as they were loaded."""
    digest = hashlib.sha256()
    for tensor in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        array = tensor.contiguous().numpy()
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def fingerprint_partition(parts: Sequence[np.ndarray]) -> str:
    """sha256 over each client's indices, in the order of the clients."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} ".encode())
        digest.update(np.ascontiguousarray(part, dtype="<i8").data)
    return digest.hexdigest()
