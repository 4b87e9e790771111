"""The partitions of the FedProx and SCAFFOLD papers against plain implementations and what the papers say of them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedopt.data.label_skew import LabelSkew
from fedopt.data.partition import split_labels
from fedopt.data.partitions.base import TrainingSet
from fedopt.data.partitions.power_law import PowerLaw
from fedopt.data.settings import DataSettings
from fedopt.errors import PartitionImpossible

BALANCED = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))


def split(kind: str, labels: np.ndarray = BALANCED, **keys: Any) -> LabelSkew:
    settings_ = DataSettings(partition=kind, **{"clients": 20, **keys})
    return LabelSkew.of(labels, split_labels(labels, settings_, seed=0), int(labels.max()) + 1)


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_a_client_holds_consecutive_labels_and_at_least_five_samples_of_each(classes: int) -> None:
    counts = split("power-law", classes=classes).counts
    for client, row in enumerate(counts):
        held = {(client + offset) % 10 for offset in range(classes)}
        assert set(np.flatnonzero(row).tolist()) == held
        assert min(row[label] for label in held) >= 5


@given(st.integers(0, 2**32), st.integers(1, 20), st.floats(0, 5), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_sizes_are_least_and_a_share_of_the_rest_by_lognormal_weights(
    seed: int, clients: int, sigma: float, least: int
) -> None:
    n = 200
    parts = PowerLaw(classes=1, sigma=sigma, least=least).draw(
        TrainingSet(np.zeros(n, dtype=np.int64)), clients, np.random.default_rng(seed)
    )
    rng = np.random.default_rng(seed)
    rng.permutation(n)
    weights = rng.lognormal(0.0, sigma, clients)
    rest = n - least * clients
    for part, weight in zip(parts, weights, strict=True):
        exact = least + rest * Fraction(weight) / sum(map(Fraction, weights))
        assert abs(len(part) - exact) < 1 + Fraction(1e-9)
    assert sum(map(len, parts)) == n


def test_logarithms_of_the_dealt_sizes_have_the_deviation_sigma() -> None:
    labels = np.zeros(2_000_000, dtype=np.int64)
    dealt = split("power-law", labels, clients=400, classes=1, sigma=0.5).sizes - 5
    assert np.log(dealt).std() == pytest.approx(0.5, rel=0.15)  # the error of 400 draws is 3.5%


def test_without_spread_the_samples_of_a_label_are_shared_evenly() -> None:
    counts = split("power-law", sigma=0.0).counts
    assert set(counts[counts > 0].tolist()) == {125}  # four of 20 clients hold a label


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"classes": 11}, "data.classes: 11 a client, but the data have 10 classes"),
        ({"clients": 3, "classes": 2}, "data.classes = 8 would work, or 10 clients"),
        ({"clients": 1000}, "too few for 5 each; data.least = 2 would work"),
    ],
)
def test_a_power_law_that_cannot_be_says_what_would_work(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PartitionImpossible) as caught:
        split("power-law", **keys)
    assert sentence in str(caught.value)


def test_what_a_refused_power_law_advises_works() -> None:
    assert (split("power-law", clients=3, classes=8).sizes > 0).all()
    assert (split("power-law", clients=1000, least=2).sizes >= 4).all()


def test_where_a_client_needs_more_than_it_gets_a_smaller_spread_is_offered() -> None:
    with pytest.raises(PartitionImpossible, match=r"what would work: data\.sigma = "):
        split("power-law", min_samples=100, sigma=3.0)


def test_full_similarity_is_iid_and_none_gives_stretches_of_sorted_labels() -> None:
    assert (split("similarity", similarity=1.0).distances < 0.15).all()
    counts = split("similarity", similarity=0.0).counts  # 250 samples a client, 500 a label
    assert np.array_equal(counts, np.repeat(250 * np.eye(10, dtype=np.int64), 2, axis=0))


def test_similarity_deals_the_share_iid_and_sorts_the_rest() -> None:
    """25 of 250 samples of each client are iid: about 2.5 of each label; the other 225 are one or two labels."""
    counts = split("similarity", similarity=0.1).counts
    assert (counts.sum(1) == 250).all()
    own = np.sort(counts, axis=1)
    assert (own[:, -2:].sum(1) >= 225).all()
    away = own[:, :-2]
    assert away.mean() == pytest.approx(2.5, rel=0.1)


@given(st.integers(1, 300), st.integers(1, 12), st.floats(0, 1), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_sizes_of_similarity_are_those_of_iid(n: int, clients: int, share: float, seed: int) -> None:
    clients = min(n, clients)
    labels = np.arange(n) % 3
    parts = split_labels(labels, DataSettings(partition="similarity", clients=clients, similarity=share), seed)
    assert [len(part) for part in parts] == [len(part) for part in np.array_split(labels, clients)]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))
