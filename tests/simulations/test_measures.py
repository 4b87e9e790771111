"""What a run measures of itself, on real data, against plain computations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import fedopt
from fedopt.data.batches import plan_batches, plan_samples, samples_seen
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.models.build import build_model
from fedopt.optimizers.local import LocalSettings
from fedopt.runs.history import History
from fedopt.seeding import Purpose, stream

OFTEN = {"drift_every": 2, "clients_every": 2}


def play(out: Path, **sections: Any) -> History:
    settings = {"model": {"name": "mlp", "hidden": [8]}, "run": {"rounds": 5, "dtype": "float64"}, "metrics": OFTEN}
    return fedopt.run(fedopt.Experiment(**{**settings, **sections}), out)


def test_measures_come_when_they_are_due(tmp_path: Path) -> None:
    records = play(tmp_path / "run").records
    assert [record.gradients is not None for record in records] == [True, True, False, True, True]
    assert [record.clients is not None for record in records] == [True, True, False, True, True]
    assert all(record.drift is not None and set(record.drift.layers) == {"1", "3"} for record in records)
    assert all(
        record.classes is not None and record.algorithm is None and record.divergence is None for record in records
    )
    off = {"drift": "off", "drift_every": 0, "clients_every": 0}
    silent = play(tmp_path / "silent", metrics=off).records
    assert all(r.drift is None and r.gradients is None and r.clients is None for r in silent)
    assert [r.update_norm for r in silent] == [r.update_norm for r in records]


def test_the_norm_of_the_mean_update_is_the_step_of_the_model(tmp_path: Path) -> None:
    for record in play(tmp_path / "run", algorithm={"name": "scaffold", "server_lr": 0.5}).records:
        assert record.drift is not None
        assert record.update_norm == pytest.approx(0.5 * record.drift.norm, rel=1e-9)


def test_clients_and_classes_are_those_of_the_final_weights(tmp_path: Path) -> None:
    history = play(tmp_path / "run")
    experiment = history.experiment
    data = load_dataset(experiment.data, 0)
    owners = owners_of_tests(data, partition(data, experiment.data, 0), 0)
    module = build_model(experiment.model, (1, 8, 8), 10, seed=0).double()
    module.load_state_dict(history.weights)
    with torch.no_grad():
        outputs = module(data.x_test.double())
    right = (outputs.argmax(1) == data.y_test).numpy()
    losses = F.cross_entropy(outputs, data.y_test, reduction="none").numpy()
    last = history.records[-1]
    assert last.clients is not None
    assert last.classes is not None
    for client, (accuracy, loss) in enumerate(zip(last.clients.accuracy, last.clients.loss, strict=True)):
        own = owners == client
        assert (accuracy is None) == (not own.any())
        if accuracy is not None:
            assert accuracy == pytest.approx(right[own].mean())
            assert loss == pytest.approx(losses[own].mean())
    by_class = [right[data.y_test.numpy() == label].mean() for label in range(10)]
    assert last.classes.accuracy == pytest.approx(by_class)
    measured = [record.classes.accuracy for record in history.records if record.classes]
    best = np.max(np.array(measured, dtype=np.float64), axis=0)
    assert last.classes.forgetting == pytest.approx(best - by_class)


def test_one_client_with_all_data_does_not_diverge_from_the_centralised_run(tmp_path: Path) -> None:
    alone = {"clients": 1, "partition": "iid"}
    local = {"batch_size": "full", "epochs": 3}
    for record in play(
        tmp_path / "run", data=alone, local=local, metrics={"divergence": True}, run={"rounds": 5, "participation": 1.0}
    ).records:
        assert record.divergence == 0


def test_divergence_is_the_distance_to_a_plain_centralised_run(tmp_path: Path) -> None:
    """Full batches leave nothing to chance: each round the central model takes as many epochs as samples were seen."""
    local = {"batch_size": "full", "epochs": 2, "lr": 0.05}
    history = play(
        tmp_path / "run",
        data={"clients": 4, "alpha": 0.5},
        local=local,
        metrics={"divergence": True},
        run={"rounds": 3, "participation": 1.0, "dtype": "float64"},
    )
    data = load_dataset(history.experiment.data, 0)
    module = build_model(history.experiment.model, (1, 8, 8), 10, seed=0).double()
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    for _ in range(3 * 2):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(module(data.x_train.double()), data.y_train))
        optimizer.step()
    central = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
    x = torch.cat([history.weights[name].reshape(-1) for name, _ in module.named_parameters()])
    expected = (torch.linalg.vector_norm(x - central) / torch.linalg.vector_norm(central)).item()
    assert history.records[-1].divergence == pytest.approx(expected, rel=1e-9)


def test_a_full_batch_that_is_cut_counts_for_what_it_is(tmp_path: Path) -> None:
    """A cohort sees no whole number of passes over all data: the central run ends with a part of them, at random."""
    local = {"batch_size": "full", "epochs": 2, "lr": 0.05, "momentum": 0.9}
    history = play(
        tmp_path / "run",
        data={"clients": 4, "alpha": 0.5},
        local=local,
        metrics={"divergence": True},
        run={"rounds": 4, "cohort": 2, "dtype": "float64"},
    )
    data = load_dataset(history.experiment.data, 0)
    parts = partition(data, history.experiment.data, 0)
    samples, x, y = len(data.y_train), data.x_train.double(), data.y_train
    module = build_model(history.experiment.model, (1, 8, 8), 10, seed=0).double()
    cut = 0
    for record in history.records:
        seen = 2 * sum(len(parts[client]) for client in record.cohort)
        passes, rest = divmod(seen, samples)
        plan = plan_samples(samples, seen, history.experiment.local, stream(0, Purpose.CENTRAL, record.round))
        batches = [np.arange(samples)] * passes + [plan.positions[-1][:rest]] * (rest > 0)
        assert [len(batch) for batch in batches] == plan.counts.tolist()
        assert len(np.unique(batches[-1])) == len(batches[-1])
        if rest:
            cut += 1
            assert batches[-1].tolist() != sorted(batches[-1])
        optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
        for batch in batches:
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(module(x[batch]), y[batch]))
            optimizer.step()
    assert cut >= 3
    central = torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
    end = torch.cat([history.weights[name].reshape(-1) for name, _ in module.named_parameters()])
    expected = (torch.linalg.vector_norm(end - central) / torch.linalg.vector_norm(central)).item()
    assert history.records[-1].divergence == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("local", [{"epochs": 3, "batch_size": 7}, {"epochs": None, "steps": 8, "batch_size": 7}])
@pytest.mark.parametrize("samples", [5, 7, 20, 21])
def test_samples_are_counted_as_they_are_seen(local: dict[str, Any], samples: int) -> None:
    settings = LocalSettings(**local)
    plan = plan_batches(samples, settings, np.random.default_rng(0))
    assert samples_seen(samples, settings, plan.steps) == plan.counts.sum()
    central = plan_samples(13, int(plan.counts.sum()), settings, np.random.default_rng(0))
    assert central.counts.sum() == plan.counts.sum()
    assert central.counts.min() >= 1


def test_the_partition_is_told_once(tmp_path: Path) -> None:
    history = play(tmp_path / "run", data={"clients": 3, "alpha": 0.3})
    told = json.loads((tmp_path / "run" / "partition.json").read_text())
    data = load_dataset(history.experiment.data, 0)
    parts = partition(data, history.experiment.data, 0)
    assert told["counts"] == [np.bincount(data.y_train.numpy()[part], minlength=10).tolist() for part in parts]
    assert told["sizes"] == [len(part) for part in parts]
    assert told["clients"] is None, "digits have no clients with names"
    assert list(told) == [
        *("classes", "sizes", "clients", "counts", "entropy", "effective_classes", "total_variation"),
        "jensen_shannon",
    ]


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_the_gap_of_the_controls_is_rounding_under_either_weighting(tmp_path: Path, weighting: str) -> None:
    records = play(
        tmp_path / "run",
        algorithm={"name": "scaffold", "weighting": weighting},
        data={"clients": 5, "alpha": 0.3},
        run={"rounds": 3, "cohort": 2, "dtype": "float64", "eval_every": 2},
        metrics={"drift_every": 1, "clients_every": 0},
    ).records
    gaps = [None if r.algorithm is None else r.algorithm["gap"] for r in records]
    assert all(gap is not None and gap < 1e-12 for gap in gaps)
    assert [r.test_accuracy is not None for r in records] == [False, True, True]  # every second round, and the last
