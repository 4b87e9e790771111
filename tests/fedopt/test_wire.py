"""What travels is read as if a stranger had sent it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fedopt
from fedopt.experiment.experiment import Experiment
from fedopt.round.federation import Broadcast, Numbers, Score, WorkOrder
from fedopt.schedules.plan import RateFactors
from fedopt.wire import (
    Farewell,
    Greeting,
    Hello,
    Malformed,
    Order,
    read_model,
    read_score,
    read_update,
    score_fields,
    update_fields,
)
from fedopt.wire_arrays import as_arrays, read_vectors

LIKE = torch.zeros(3, dtype=torch.float64)
NUMBERS = frozenset({"error", "distance"})
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(),
    st.booleans(),
    st.binary(),
    st.lists(st.integers()),
    st.lists(st.text()),
)
NAMES = st.sampled_from(
    [
        *("protocol", "federation", "experiment", "sample_shape", "class_names", "client", "samples", "refusal"),
        *("reason", "failed", "round", "accepted", "saved", "steps", "loss", "other"),
    ]
)
FIELDS: Any = st.dictionaries(NAMES, VALUES)
ARRAYS: Any = st.dictionaries(
    st.sampled_from(["x", "down.c", "dx"]),
    st.sampled_from([np.zeros(3), np.zeros(3, np.float32), np.zeros((3, 1)), np.zeros(0), np.full(3, np.nan)]),
)


def test_an_order_arrives_as_it_left() -> None:
    down = {"c": torch.tensor([4.0, 5, 6]).double()}
    broadcast = Broadcast(7, torch.tensor([1.0, 2, 3]).double(), down, gradient=True, factors=RateFactors(0.1, 0.5))
    sent = Order(broadcast, WorkOrder(3, 5), saved=2)
    got = Order.read(sent.fields(), as_arrays(sent.vectors), LIKE)
    assert (got.broadcast.round, got.broadcast.gradient, got.work, got.saved) == (7, True, WorkOrder(3, 5), 2)
    assert got.broadcast.factors == RateFactors(0.1, 0.5)
    assert torch.equal(got.broadcast.x, sent.broadcast.x)
    assert torch.equal(got.broadcast.down["c"], down["c"])
    first = Order.read(Order(Broadcast(1, LIKE), WorkOrder(0, None), None).fields(), {"x": np.zeros(3)}, LIKE)
    assert (first.work.accepted, first.saved) == (None, None)


@pytest.mark.parametrize("factors", [[1.0], [0.0, 1.0], [1.0, math.inf], [1.0, math.nan], [1, 1], "1"])
def test_factors_of_rates_are_two_numbers_above_zero(factors: Any) -> None:
    fields = {**Order(Broadcast(1, LIKE), WorkOrder(0, None), None).fields(), "factors": factors}
    with pytest.raises(Malformed, match="factors"):
        Order.read(fields, {"x": np.zeros(3)}, LIKE)


def test_a_vector_that_arrives_is_the_receivers_own() -> None:
    array = np.zeros(3)
    array.flags.writeable = False
    order = Order.read(Order(Broadcast(1, LIKE), WorkOrder(0, None), None).fields(), {"x": array}, LIKE)
    order.broadcast.x.add_(1)
    assert array.sum() == 0


def test_an_update_arrives_as_it_left() -> None:
    numbers, dx = Numbers(10, 4, 0.25, {"error": 0.5}), torch.tensor([1.0, -2, 3]).double()
    up = read_vectors(as_arrays({"dx": dx}), LIKE, {"dx"})
    got = read_update(update_fields(7, 3, numbers), up, NUMBERS, traffic=(11, 22))
    assert (got.round, got.client, got.numbers) == (7, 3, numbers)
    assert (got.bytes_down, got.bytes_up) == (11, 22)
    assert torch.equal(got.up["dx"], dx)


@pytest.mark.parametrize(
    ("fields", "arrays", "complaint"),
    [
        ({"steps": 4.0}, {}, "its 'steps' is 4.0, where int is meant"),
        ({"samples": True}, {}, "its 'samples' is True, where int is meant"),
        ({"loss": None}, {}, "its 'loss' is None, where float is meant"),
        ({"number.error": math.nan}, {}, "it reports error = nan"),
        ({"number.error": math.inf}, {}, "it reports error = inf"),
        ({"number.error": "high"}, {}, "its 'number.error' is 'high', where float is meant"),
        ({"number.gap": 0.0}, {}, "it reports gap = 0.0"),
        ({}, {"dx": np.zeros(4)}, r"dx is float64 \(4,\), the model float64 \(3,\)"),
        ({}, {"dx": np.zeros(3, np.float32)}, "dx is float32"),
        ({}, {"dx": np.zeros(1)}, "dx is float64"),
        ({}, {"dy": np.zeros(3)}, r"it brings \['dx', 'dy'\] where \['dx'\] belong"),
    ],
)
def test_an_update_that_is_not_one_is_refused(fields: dict[str, Any], arrays: dict[str, Any], complaint: str) -> None:
    given_fields = {**update_fields(7, 3, Numbers(10, 4, 0.25)), **fields}
    with pytest.raises(Malformed, match=complaint):
        read_update(given_fields, read_vectors({**as_arrays({"dx": LIKE}), **arrays}, LIKE, {"dx"}), NUMBERS, (0, 0))


def test_a_score_arrives_as_it_left_and_one_that_is_none_is_refused() -> None:
    score = Score(client=3, samples=10, loss=0.5, accuracy=0.7)
    assert read_score(score_fields(score)) == score
    assert read_score({**score_fields(score), "samples": 0}) is None  # a client without a test share
    for wrong in ({"samples": -1}, {"accuracy": 1.5}, {"accuracy": -0.1}, {"loss": math.nan}, {"loss": math.inf}):
        with pytest.raises(Malformed, match="it scores"):
            read_score({**score_fields(score), **wrong})


@given(fields=FIELDS, arrays=ARRAYS)
def test_whatever_arrives_is_read_or_malformed(fields: Any, arrays: Any) -> None:
    for read in (
        lambda: Hello.read(fields).sections(),
        lambda: Greeting.read(fields),
        lambda: Farewell.read(fields),
        lambda: Order.read(fields, arrays, LIKE),
        lambda: read_score(fields),
        lambda: read_model(arrays, LIKE),
        lambda: read_update(fields, read_vectors(arrays, LIKE, {"dx"}), NUMBERS, (0, 0)),
    ):
        try:
            read()
        except Malformed as error:
            assert str(error)


def test_the_experiment_travels_without_what_is_each_machines_own(tmp_path: Any) -> None:
    experiment = fedopt.Experiment(
        data={"name": "npz", "path": str(tmp_path / "secret.npz")}, run={"device": "cpu", "threads": 2}
    )
    hello = Hello.of("f", experiment, (4,), ("a", "b"))
    assert "secret" not in hello.experiment
    assert "device" not in hello.experiment
    again = Hello.read(hello.fields())
    assert again == hello
    sections = again.sections()
    sections["data"]["path"] = str(tmp_path / "mine.npz")
    assert Experiment(**sections).data.path == tmp_path / "mine.npz"
