"""Each client's own share of the test set, with the class distribution of its training samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedopt.data.dataset import Dataset
from fedopt.data.label_skew import LabelSkew
from fedopt.seeding import Purpose, stream


def owners_of_tests(dataset: Dataset, parts: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """The client of each test sample, [n_test]; every sample is one client's.

    Data with clients of their own bring their test samples. Otherwise each class of the test set, in a random order,
    is divided among the clients in proportion to their training samples of that class; a class that no client
    trains on, in proportion to their sizes, and so are data without classes.
    """
    if dataset.test_clients is not None and dataset.are_its_clients(parts):
        return dataset.test_clients
    if dataset.has_numbers:
        dataset = dataset.as_one_class()
    labels = dataset.y_test.cpu().numpy()
    skew = LabelSkew.of(dataset.y_train.cpu().numpy(), parts, dataset.classes)
    owners = np.zeros(len(labels), dtype=np.int64)
    for label in range(dataset.classes):
        samples = np.flatnonzero(labels == label)
        weights = skew.counts[:, label] if skew.counts[:, label].any() else skew.sizes
        order = stream(seed, Purpose.TEST_SHARES, label).permutation(samples)
        owners[order] = np.repeat(np.arange(len(parts)), apportion(len(samples), weights))
    return owners


def apportion(seats: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers with the sum `seats`, proportional to `weights` by largest remainders; ties go to the first.

    `weights` are counts, so that remainders are compared as whole numbers: rounding breaks no tie.
    """
    whole: np.ndarray
    whole, remainders = np.divmod(seats * weights.astype(np.int64), int(weights.sum()))
    whole[np.argsort(-remainders, kind="stable")[: seats - whole.sum()]] += 1
    return whole
