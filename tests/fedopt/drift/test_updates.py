"""Drift of updates: closed forms, a plain computation with all updates at hand, and any order of arrival."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedopt.algorithms.base import DISPLACEMENT
from fedopt.drift.layers import MOST_LAYERS, Layers
from fedopt.drift.measuring import MeasurePlan, RoundMeasures
from fedopt.drift.records import Drift
from fedopt.round.gathering.mean import MeanCollector
from fedopt.vectors.exact_sum import CHUNK
from fedopt.vectors.layout import Layout

TWO = Layers(("first", "second"), ((0, 2), (1, 1)))
"""Two layers, of two parameters and of one."""


def drift_of(
    updates: list[torch.Tensor], shares: list[float], layers: Layers = TWO, order: list[int] | None = None
) -> Drift:
    measures, collector = RoundMeasures(MeasurePlan(layers), updates[0]), MeanCollector()
    for client in order or range(len(updates)):
        up = {DISPLACEMENT: updates[client]}
        measures.fold(client, up, shares[client])
        collector.fold(client, up, {}, shares[client])
    drift = measures.result(collector.totals()).drift
    assert drift is not None
    return drift


def double(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_identical_clients_do_not_drift() -> None:
    found = drift_of([double(3, 0, 4)] * 3, [0.2, 0.5, 0.1])
    assert found.norm == pytest.approx(5, rel=1e-12)
    assert found.mean_norm == pytest.approx(5, rel=1e-12)
    assert found.dispersion == pytest.approx(0, abs=1e-12)
    assert found.ratio == pytest.approx(1, rel=1e-12)
    assert found.cosine == pytest.approx(1, abs=1e-9)
    assert found.layers["first"].norm == pytest.approx(3, rel=1e-12)
    assert found.layers["second"].norm == pytest.approx(4, rel=1e-12)


def test_opposite_updates_cancel() -> None:
    """d = 0: the dispersion is all there is, the ratio is beyond all numbers, the cosine -1."""
    found = drift_of([double(3, 0, 4), double(-3, 0, -4)], [0.25, 0.25])
    assert (found.norm, found.mean_norm, found.dispersion, found.ratio) == (0, 5, 25, None)
    assert found.cosine == pytest.approx(-1, abs=1e-9)


def test_orthogonal_updates() -> None:
    """d = (1, 1, 0) / 2, so |d|^2 = 1/2 and mean |d_i|^2 = 1,
    hence dispersion 1/2 and ratio 2; nothing in the second layer."""
    found = drift_of([double(1, 0, 0), double(0, 1, 0)], [0.5, 0.5])
    assert found.norm == pytest.approx(0.5**0.5, rel=1e-12)
    assert found.dispersion == pytest.approx(0.5, rel=1e-12)
    assert found.ratio == pytest.approx(2, rel=1e-12)
    assert found.cosine == pytest.approx(0, abs=1e-9)
    still = found.layers["second"]
    assert (still.norm, still.dispersion, still.ratio, still.cosine) == (0, 0, None, None)


def test_one_client_has_no_one_to_differ_from() -> None:
    found = drift_of([double(3, 0, 4)], [0.1])
    assert found.cosine is None
    assert found.dispersion == pytest.approx(0, abs=1e-12)
    assert found.ratio == 1


def test_a_client_that_stays_has_no_direction() -> None:
    found = drift_of([double(1, 0, 0), double(0, 0, 0), double(1, 1, 0)], [0.2, 0.2, 0.2])
    assert found.cosine == pytest.approx(0.5**0.5, abs=1e-9)  # of the two that moved


def plainly(updates: np.ndarray, shares: np.ndarray) -> tuple[float, float, float, float, float]:
    """The definitions, word for word."""
    w = shares / shares.sum()
    d = w @ updates
    pairs = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(updates, 2)]
    lengths = np.linalg.norm(updates, axis=1)
    return (
        float(np.linalg.norm(d)),
        float(w @ lengths),
        float(w @ np.linalg.norm(updates - d, axis=1) ** 2),
        float(w @ lengths**2 / (d @ d)),
        float(np.mean(pairs)),
    )


@given(seed=st.integers(0, 2**32 - 1), clients=st.integers(2, 12), size=st.integers(2, 40), offset=st.floats(0, 3))
def test_the_streaming_sums_are_the_definitions(seed: int, clients: int, size: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    updates = rng.standard_normal((clients, size)) + offset
    shares = rng.uniform(0.01, 1, clients) / clients
    cut = int(rng.integers(1, size))
    layers = Layers(("a", "b"), ((0, cut), (1, size - cut)))
    found = drift_of([torch.from_numpy(row) for row in updates], shares.tolist(), layers)
    for measured, columns in (
        (found, slice(None)),
        (found.layers["a"], slice(cut)),
        (found.layers["b"], slice(cut, None)),
    ):
        norm, mean_norm, dispersion, ratio, cosine = plainly(updates[:, columns], shares)
        assert measured.norm == pytest.approx(norm, rel=1e-9, abs=1e-12)
        assert measured.mean_norm == pytest.approx(mean_norm, rel=1e-12)
        assert measured.dispersion == pytest.approx(dispersion, rel=1e-9)
        assert measured.ratio == pytest.approx(ratio, rel=1e-6)
        assert measured.cosine == pytest.approx(cosine, abs=1e-8)


@given(seed=st.integers(0, 1000))
def test_the_order_of_arrival_does_not_matter_to_the_last_bit(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    updates = list(torch.randn(7, 33, generator=draw))
    shares = torch.rand(7, generator=draw).div(7).tolist()
    layers = Layers(("a", "b", "a2"), ((0, 10), (1, 3), (0, 7), (2, 13)))
    order = list(range(7))
    random.Random(seed).shuffle(order)
    assert drift_of(updates, shares, layers) == drift_of(updates, shares, layers, order)


def test_a_layer_may_lie_in_pieces_and_be_longer_than_a_chunk() -> None:
    size = CHUNK + 10
    rng = np.random.default_rng(0)
    updates = rng.standard_normal((3, size + 8)).astype(np.float32)
    layers = Layers(("a", "b"), ((0, size), (1, 5), (0, 3)))
    found = drift_of([torch.from_numpy(row) for row in updates], [0.1, 0.2, 0.3], layers)
    wide = updates.astype(np.float64)
    a = np.concatenate([wide[:, :size], wide[:, size + 5 :]], axis=1)
    norm, mean_norm, dispersion, ratio, cosine = plainly(a, np.array([0.1, 0.2, 0.3]))
    layer = found.layers["a"]
    assert [layer.norm, layer.mean_norm, layer.dispersion, layer.ratio] == pytest.approx(
        [norm, mean_norm, dispersion, ratio]
    )
    assert layer.cosine == pytest.approx(cosine, abs=1e-8)


def test_measuring_leaves_the_update_as_it_was() -> None:
    update = double(3, 0, 4)
    drift_of([update, double(1, 1, 1)], [0.5, 0.5])
    assert update.tolist() == [3, 0, 4]


def test_layers_are_the_modules_that_own_parameters() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    assert Layers.of(Layout.of(module)) == Layers(("0", "2"), ((0, 8), (1, 6)))


def test_a_deep_model_is_measured_by_its_parts() -> None:
    module = nn.Sequential(*(nn.Sequential(*(nn.Linear(1, 1) for _ in range(9))) for _ in range(3)))
    layers = Layers.of(Layout.of(module))
    assert layers.names == ("0", "1", "2")
    assert len(layers.names) <= MOST_LAYERS
    assert layers.pieces == ((0, 18), (1, 18), (2, 18))


def test_the_longest_update_is_named_by_its_client_and_the_lowest_of_several() -> None:
    updates = [double(3, 0, 4), double(0, 12, 5), double(5, 12, 0), double(1, 0, 0)]
    found = drift_of(updates, [0.25] * 4, order=[3, 2, 1, 0])
    assert found.longest == pytest.approx(13, rel=1e-12)
    assert found.longest_client == 1
