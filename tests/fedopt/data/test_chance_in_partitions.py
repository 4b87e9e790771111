"""What of a partition is left to chance: neither the order of the data nor that of the labels shows in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedopt.data.dataset import Dataset
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.label_skew import LabelSkew
from fedopt.data.partition import split_labels
from fedopt.data.settings import DataSettings

SORTED = np.repeat(np.arange(2), 400)
KINDS = ["iid", "dirichlet", "dirichlet-balanced", "shards", "classes", "quantity", "power-law", "similarity"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_s_samples_of_a_label_are_no_stretch_of_the_data_and_come_in_rising_order(kind: str) -> None:
    settings = DataSettings(partition=kind, clients=4, alpha=1.0, sigma=1.0, similarity=0.0, shards=2, classes=1)
    looked_at = 0
    for part in split_labels(SORTED, settings, seed=0):
        assert (np.diff(part) > 0).all()
        for label in (0, 1):
            own = part[SORTED[part] == label]
            if 20 <= len(own) <= 300:  # of 400; chance gathers 20 of them in one stretch less than once in 10^30
                assert own[-1] - own[0] + 1 > len(own)
                looked_at += 1
    assert looked_at >= 2


def test_a_client_s_shards_come_from_anywhere() -> None:
    """Of 20 shards, two of each label, the second is of the first one's label once in 19: 2 - 1/19 labels a client."""
    labels = np.repeat(np.arange(10), 100)
    settings = DataSettings(partition="shards", clients=10, shards=2)
    held = [
        (LabelSkew.of(labels, split_labels(labels, settings, seed), 10).counts > 0).sum(axis=1).mean()
        for seed in range(20)
    ]
    assert np.mean(held) == pytest.approx(2 - 1 / 19, abs=0.05)


def test_which_labels_come_together_is_another_matter_in_every_draw() -> None:
    labels = np.repeat(np.arange(10), 60)
    settings = DataSettings(partition="classes", clients=10, classes=3)

    def together(seed: int) -> frozenset[frozenset[int]]:
        counts = LabelSkew.of(labels, split_labels(labels, settings, seed), 10).counts
        return frozenset(frozenset(np.flatnonzero(row).tolist()) for row in counts)

    assert len({together(seed) for seed in range(5)}) == 5


def test_clients_may_have_exactly_the_samples_that_each_needs() -> None:
    settings = DataSettings(partition="iid", clients=4, min_samples=3)
    assert [len(part) for part in split_labels(np.zeros(12, dtype=np.int64), settings, seed=0)] == [3, 3, 3, 3]


def test_test_samples_of_two_classes_are_dealt_independently() -> None:
    y_train, y_test = torch.tensor([0, 1] * 20), torch.tensor([0] * 40 + [1] * 40)
    data = Dataset(torch.zeros(40, 1), y_train, torch.zeros(80, 1), y_test, classes=2)
    owners = owners_of_tests(data, [np.arange(20), np.arange(20, 40)], seed=0)
    assert np.bincount(owners[:40]).tolist() == np.bincount(owners[40:]).tolist() == [20, 20]
    assert not np.array_equal(owners[:40], owners[40:])


@pytest.mark.parametrize("seed", range(8))
def test_exactly_the_fair_share_closes_a_client(seed: int) -> None:
    """At such an alpha a class goes to one client whole: two classes of 10 are the fair share of 20."""
    settings = DataSettings(partition="dirichlet-balanced", clients=2, alpha=1e-4)
    assert [len(part) for part in split_labels(np.repeat(np.arange(4), 10), settings, seed)] == [20, 20]
