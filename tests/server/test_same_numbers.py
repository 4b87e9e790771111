"""A deployed run computes what the simulation computes: real processes over gRPC, bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import fedopt
from fedopt.runs.history import History
from fedopt.vectors.layout import fingerprint
from server.deployment import open_run
from server.local_clients import LocalClients
from server.local_federation import run_locally

pytestmark = pytest.mark.deployment

LOCAL: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.05},
    "momentum": {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9, "crop": 1, "flip": True},
    "adam": {"optimizer": "adam", "lr": 0.002},
    "sam": {"optimizer": "sam", "lr": 0.05, "rho": 0.05},
    "drawn": {"optimizer": "sgd", "lr": 0.05, "epochs": "uniform(1, 3)", "stragglers": 0.5},
}

QUICK = [("scaffold", "adam", 0.5)]
"""Each algorithm and participation is in one of these; all twelve cases are in `make test-slow`."""


RATES: dict[str, Any] = {
    "local": {"schedule": "plateau", "gamma": 0.5, "patience": 0, "threshold": 0.9, "warmup": 1, "l2": 0.01},
    "server": {"schedule": "plateau", "gamma": 0.9, "patience": 0, "threshold": 0.9},
}
"""Rates that fall with the test loss, which clients do not know."""


@pytest.mark.slow
def test_clients_get_the_factors_of_rates_and_learn_numbers(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((80, 4))
    y = x @ generator.standard_normal((4, 2))
    np.savez(tmp_path / "own.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    settings = fedopt.Experiment(
        data={"name": "npz", "path": str(tmp_path / "own.npz"), "partition": "iid", "clients": 3},
        model={"name": "logistic"},
        algorithm={"name": "fedacg"},
        run={"rounds": 4, "participation": 1.0, "dtype": "float64", "device": "cpu"},
        metrics={"clients_every": 2},
        **RATES,
    )
    here, there = fedopt.run(settings, tmp_path / "here"), deployed(settings, tmp_path / "there")
    assert here.summary.weights_sha256 == there.summary.weights_sha256
    assert here.summary.final == there.summary.final
    ours, theirs = here.records[-1].clients, there.records[-1].clients
    assert ours is not None
    assert theirs is not None
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-12)
    assert theirs.mean is ours.mean is None
    constant = settings.replace(local={"schedule": "constant", "warmup": 0}, server={"schedule": "constant"})
    assert fedopt.run(constant, tmp_path / "constant").summary.weights_sha256 != here.summary.weights_sha256


def experiment(algorithm: str, optimizer: str, participation: float, dtype: str, **run: Any) -> fedopt.Experiment:
    return fedopt.Experiment(
        data={"clients": 4, "alpha": 0.5},
        model={"name": "mlp", "hidden": [16]},
        algorithm={"name": algorithm},
        local={"epochs": 1, "batch_size": 16, **LOCAL[optimizer]},
        run={"rounds": 3, "participation": participation, "seed": 5, "dtype": dtype, "device": "cpu", **run},
    )


def deployed(settings: fedopt.Experiment, out: Path) -> History:
    with LocalClients() as local_clients, open_run(settings, out, None, []) as (directory, setup):
        return run_locally(local_clients, directory, setup, lambda line: None, [])


@pytest.mark.parametrize(
    ("algorithm", "optimizer", "participation"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(("fedavg", "scaffold"), ("sgd", "adam", "sam"), (1.0, 0.5))
    ],
)
def test_a_federation_over_grpc_ends_with_the_weights_of_the_simulation(
    algorithm: str, optimizer: str, participation: float, tmp_path: Path
) -> None:
    settings = experiment(algorithm, optimizer, participation, "float32")
    here, there = fedopt.run(settings, tmp_path / "here"), deployed(settings, tmp_path / "there")
    assert [record.test_accuracy for record in here.records] == [record.test_accuracy for record in there.records]
    assert [record.cohort for record in here.records] == [record.cohort for record in there.records]
    for name, weights in here.weights.items():
        assert torch.allclose(weights, there.weights[name], rtol=1e-6, atol=0), name


@pytest.mark.parametrize(
    ("algorithm", "optimizer"),
    [
        ("scaffold", "momentum"),
        pytest.param("fedavg", "momentum", marks=pytest.mark.slow),
        pytest.param("scaffold", "drawn", marks=pytest.mark.slow),
    ],
)
def test_in_float64_the_bits_are_the_same(algorithm: str, optimizer: str, tmp_path: Path) -> None:
    settings = experiment(algorithm, optimizer, 0.5, "float64", rounds=6, keep_models=4)
    here, there = fedopt.run(settings, tmp_path / "here"), deployed(settings, tmp_path / "there")
    assert here.summary.weights_sha256 == there.summary.weights_sha256
    assert here.summary.final == there.summary.final
    assert there.summary.engine == "flower"
    for ours, theirs in zip(here.records, there.records, strict=True):  # what is measured, too
        assert ours.drift == theirs.drift
        assert ours.gradients == theirs.gradients
        assert ours.classes == theirs.classes
        if ours.algorithm is not None:
            assert theirs.algorithm == {**ours.algorithm, "gap": None}  # the server sees no c_i
        assert (ours.clients is None) == (theirs.clients is None)
        if ours.clients is not None and theirs.clients is not None:
            assert theirs.clients.accuracy == ours.clients.accuracy
            assert theirs.clients.mean_loss == pytest.approx(ours.clients.mean_loss, rel=1e-12)
    assert here.kept_rounds == there.kept_rounds == [4, 6]
    for round_ in (4, 6):
        assert fingerprint(here.model(round=round_).state_dict()) == fingerprint(there.model(round=round_).state_dict())
    assert here.records[0].gradients is not None
    assert here.records[0].clients is not None


def test_flowers_simulation_on_ray_ends_with_the_same_bits(tmp_path: Path) -> None:
    settings = experiment("scaffold", "adam", 0.5, "float64", keep_models=2)
    here = fedopt.run(settings, tmp_path / "here")
    there = fedopt.run(settings, tmp_path / "there", engine="ray")
    for round_ in (2, 3):
        assert fingerprint(here.model(round=round_).state_dict()) == fingerprint(there.model(round=round_).state_dict())
    assert here.summary.weights_sha256 == there.summary.weights_sha256
    assert there.summary.engine == "ray"


def test_bytes_in_the_metrics_are_those_that_travelled(tmp_path: Path) -> None:
    """Measured on the wire: a little more than the vectors, and twice as much with twice the vectors."""
    history = deployed(experiment("scaffold", "sgd", 1.0, "float32"), tmp_path / "run")
    weights = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    vectors = 4 * 2 * 4 * sum(tensor.numel() for tensor in weights.values())  # 4 clients, x and c, 4 bytes each
    for record in history.records:
        for travelled in (record.bytes_down, record.bytes_up):
            assert vectors < travelled < vectors + 4 * 10_000


@pytest.mark.slow
def test_twenty_clients_at_once(tmp_path: Path) -> None:
    settings = fedopt.Experiment(
        data={"clients": 20, "alpha": 1.0},
        model={"name": "logistic"},
        local={"epochs": 1},
        run={"rounds": 3, "participation": 1.0},
    )
    history = deployed(settings, tmp_path / "run")
    assert [record.cohort for record in history.records] == [list(range(20))] * 3
    assert [record.left_out for record in history.records] == [{}] * 3
    assert history.summary.weights_sha256 == fedopt.run(settings, tmp_path / "here").summary.weights_sha256
