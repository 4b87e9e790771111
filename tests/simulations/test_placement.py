"""Samples laid out client by client: the same samples, whoever shares them, and not beyond what memory allows."""

from __future__ import annotations

import gc
import weakref
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fedopt
from fedopt.runs.setup import Setup, set_up
from simulations import embedded
from simulations.placement import client_by_client


@given(st.data(), st.sampled_from([torch.float32, torch.float64, torch.int64]), st.lists(st.integers(1, 4), max_size=3))
def test_every_client_finds_its_own_samples(data: st.DataObject, dtype: torch.dtype, shape: list[int]) -> None:
    samples = data.draw(st.integers(1, 30))
    x = torch.arange(samples * int(np.prod(shape))).view(samples, *shape).to(dtype)
    y = torch.arange(samples) * 7
    # Clients may have samples in common, and there may be some that no client has.
    part = st.lists(st.integers(0, samples - 1), max_size=20).map(lambda rows: np.array(rows, dtype=np.int64))
    parts = data.draw(st.lists(part, min_size=1, max_size=6))
    (placed, targets), places = client_by_client((x, y), parts)
    assert placed.dtype == dtype
    for rows, own in zip(parts, places, strict=True):
        assert placed[own].equal(x[rows])
        assert targets[own].equal(y[rows])
    assert sum(len(own) for own in places) == len(set(np.concatenate(places).tolist()))


def test_what_would_fill_the_memory_stays_where_it_is() -> None:
    x, y, parts = torch.rand(10, 3), torch.arange(10), [np.array([3, 1]), np.array([2])]
    (placed, targets), places = client_by_client((x, y), parts, share=0.0)
    assert placed is x
    assert targets is y
    assert places == parts


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_holds_its_training_data_once(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[weakref.ref[torch.Tensor]] = []

    def watched(experiment: fedopt.Experiment) -> Setup:
        setup = set_up(experiment)
        read.append(weakref.ref(setup.dataset.x_train))
        return setup

    monkeypatch.setattr(embedded, "set_up", watched)
    with closing(embedded.prepare(fedopt.Experiment(run={"workers": workers}))):
        gc.collect()
        assert read[0]() is None


@pytest.mark.parametrize("samples", [1, 4000])
def test_a_copy_is_nobodys_to_see(samples: int) -> None:
    x = torch.rand(samples, 784)
    (placed, _), _ = client_by_client((x, torch.zeros(samples)), [np.arange(samples)])
    x.zero_()
    assert bool((placed != 0).any())
