"""Every partition covers the training set once, is a function of labels and seed, and ends in bounded time."""

from __future__ import annotations

import re
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedopt.data.label_skew import LabelSkew
from fedopt.data.partition import split_labels
from fedopt.data.partitions.base import TrainingSet
from fedopt.data.partitions.dirichlet import Dirichlet
from fedopt.data.settings import DataSettings
from fedopt.errors import PartitionImpossible
from fedopt.experiment.file import read_experiment

KINDS = ["iid", "dirichlet", "dirichlet-balanced", "shards", "classes", "quantity", "power-law", "similarity"]
LABELS = np.random.default_rng(0).integers(0, 10, 5000)


@settings(deadline=None, max_examples=150)
@given(
    hnp.arrays(np.int64, st.integers(1, 300), elements=st.integers(0, 6)),
    st.sampled_from(KINDS),
    st.integers(1, 12),
    st.floats(1e-3, 100.0),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_covers_every_sample_once_or_says_what_would_work(
    labels: np.ndarray, kind: str, clients: int, alpha: float, minimum: int, seed: int
) -> None:
    settings_ = DataSettings(partition=kind, clients=clients, alpha=alpha, min_samples=minimum)
    try:
        parts = split_labels(labels, settings_, seed)
    except PartitionImpossible as error:
        assert str(error).startswith("data.")
        return
    assert len(parts) == clients
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert min(len(part) for part in parts) >= minimum
    again = split_labels(labels, settings_, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_is_another_partition(kind: str) -> None:
    settings_ = DataSettings(partition=kind, clients=10, alpha=0.5, classes=3)
    first, second = split_labels(LABELS, settings_, 0), split_labels(LABELS, settings_, 1)
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_500_clients_at_alpha_001_end_soon_and_the_advice_works() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 60_000)
    start = time.perf_counter()
    with pytest.raises(PartitionImpossible) as caught:
        split_labels(labels, DataSettings(clients=500, alpha=0.01, min_samples=10), seed=0)
    assert time.perf_counter() - start < 60
    advice = re.findall(r"(data\.\w+ = [\w.]+)", str(caught.value).partition("what would work:")[2])
    assert len(advice) >= 2
    for remedy in advice:
        key, _, value = remedy.partition(" = ")
        settings_ = {"data.clients": "500", "data.alpha": "0.01", "data.min_samples": "10", key: value}
        changed = read_experiment(None, [f"{name}={chosen}" for name, chosen in settings_.items()])
        assert min(len(part) for part in split_labels(labels, changed.data, seed=0)) >= changed.data.min_samples


def test_iid_parts_are_of_equal_size() -> None:
    sizes = [len(part) for part in split_labels(LABELS, DataSettings(partition="iid", clients=7), 0)]
    assert max(sizes) - min(sizes) <= 1


def test_shards_hold_stretches_of_sorted_labels() -> None:
    labels = np.repeat(np.arange(10), 100)
    settings_ = DataSettings(partition="shards", clients=10, shards=2)
    skew = LabelSkew.of(labels, split_labels(labels, settings_, 0), 10)
    assert (skew.sizes == 100).all()
    assert ((skew.counts > 0).sum(axis=1) <= 2).all()  # 20 shards of 50 never straddle classes of 100
    assert set(skew.counts.ravel()) <= {0, 50, 100}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 3))
def test_classes_gives_each_client_exactly_that_many(clients: int, each: int, seed: int) -> None:
    labels = np.repeat(np.arange(10), 60)
    settings_ = DataSettings(partition="classes", clients=clients, classes=each)
    try:
        parts = split_labels(labels, settings_, seed)
    except PartitionImpossible:
        assert clients * each < 10
        return
    skew = LabelSkew.of(labels, parts, 10)
    assert ((skew.counts > 0).sum(axis=1) == each).all()
    holders = (skew.counts > 0).sum(axis=0)
    assert holders.max() - holders.min() <= 1
    for label in range(10):  # the samples of a label are shared evenly by its holders
        held = skew.counts[:, label][skew.counts[:, label] > 0]
        assert held.max() - held.min() <= 1


def test_balanced_dirichlet_closes_a_client_that_has_its_fair_share() -> None:
    settings_ = DataSettings(partition="dirichlet-balanced", clients=20, alpha=0.3)
    skew = LabelSkew.of(LABELS, split_labels(LABELS, settings_, 0), 10)
    fair = len(LABELS) / 20
    before = np.cumsum(skew.counts, axis=1) - skew.counts  # what a client held when a class was dealt
    assert not skew.counts[before >= fair].any()


def test_dirichlet_proportions_have_the_distributions_moments() -> None:
    """Over draws, the share of a class at a client has mean 1/N and variance (N-1) / (N^2 (N alpha + 1))."""
    clients, alpha, labels = 5, 0.5, np.zeros(2000, dtype=np.int64)
    shares = np.array(
        [
            [len(part) / 2000 for part in split_labels(labels, DataSettings(clients=clients, alpha=alpha), seed)]
            for seed in range(2000)
        ]
    )
    # Draws that leave a client empty are repeated, which takes a little from the tails.
    assert shares.mean() == pytest.approx(1 / clients, abs=1e-12)
    assert shares.var() == pytest.approx((clients - 1) / (clients**2 * (clients * alpha + 1)), rel=0.1)


@given(st.integers(1, 500), st.integers(1, 12), st.floats(0.05, 50.0), st.integers(0, 2**32))
def test_dirichlet_rounds_up_where_the_remainder_is_largest(n: int, clients: int, alpha: float, seed: int) -> None:
    samples = TrainingSet(np.zeros(n, dtype=np.int64))
    parts = Dirichlet(alpha=alpha).draw(samples, clients, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    rng.permutation(n)
    shares = [Fraction(share) * n for share in rng.dirichlet(np.full(clients, alpha))]
    sizes = [len(part) for part in parts]
    assert sum(sizes) == n
    up = [share % 1 for share, size in zip(shares, sizes, strict=True) if size > share]
    down = [share % 1 for share, size in zip(shares, sizes, strict=True) if size <= share]
    assert all(abs(size - share) < 1 for share, size in zip(shares, sizes, strict=True))
    assert min(up, default=1) >= max(down, default=0) - Fraction(1e-9)


@pytest.mark.parametrize("kind", ["dirichlet", "quantity"])
def test_dirichlet_rounds_in_no_client_s_favour(kind: str) -> None:
    """Over 400 draws of 100 samples the mean size of each of 4 clients is 25, whatever its number."""
    labels, settings_ = np.zeros(100, dtype=np.int64), DataSettings(partition=kind, clients=4, alpha=1e4)
    sizes = [[len(part) for part in split_labels(labels, settings_, seed)] for seed in range(400)]
    # A size has a standard deviation of about 0.5 (shares vary by 0.2): the error of the mean is 0.025.
    assert np.mean(sizes, axis=0) == pytest.approx([25] * 4, abs=0.1)


def test_quantity_skews_sizes_and_not_labels() -> None:
    settings_ = DataSettings(partition="quantity", clients=5, alpha=0.5, min_samples=200)
    skew = LabelSkew.of(LABELS, split_labels(LABELS, settings_, 0), 10)
    assert skew.sizes.max() > 2 * skew.sizes.min()
    assert (skew.distances < 0.15).all()


def test_skew_measures_have_their_closed_forms() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    skew = LabelSkew.of(labels, [np.array([0, 1]), np.array([2, 4]), np.array([3, 5, 6, 7])], 4)
    assert skew.entropies.tolist() == pytest.approx([0.0, 1.0, 1.5])
    assert skew.distances.tolist() == pytest.approx([0.75, 0.5, 0.25])
