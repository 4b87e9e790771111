"""Numbers as targets: errors in place of accuracy, from the data to the reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, mean_absolute_error, mean_squared_error, r2_score
from torch import Tensor, nn

import fedopt
from fedopt.errors import DataUnavailable, InvalidExperiment, PartitionImpossible
from fedopt.runs.regression import Regression

RNG = np.random.default_rng(0)
X = RNG.standard_normal((240, 5))
Y = X @ RNG.standard_normal((5, 2)) + 0.1 * RNG.standard_normal((240, 2)) + 3
LABELS = (X @ RNG.standard_normal((5, 3)) > 0).astype(np.int64)


def data(targets: np.ndarray) -> fedopt.Data:
    return fedopt.Data(X[:200], targets[:200], X[200:], targets[200:])


def experiment(**sections: Any) -> fedopt.Experiment:
    settings: dict[str, Any] = {
        "data": {"clients": 4},
        "model": {"name": "logistic"},
        "local": {"lr": 0.05, "epochs": 2},
        "run": {"rounds": 8, "cohort": 4, "dtype": "float64", "workers": 1},
        "metrics": {"clients_every": 8},
    }
    for name, keys in sections.items():
        settings[name] = {**settings.get(name, {}), **keys}
    return fedopt.Experiment(**settings)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_run_on_numbers_reports_its_errors(outputs: int, tmp_path: Path) -> None:
    targets = Y[:, 0] if outputs == 1 else Y
    history = fedopt.run(experiment(), tmp_path / "run", data=data(targets))
    final = history.summary.final
    with torch.no_grad():
        found = history.model()(torch.from_numpy(X[200:])).numpy()
    wanted = targets[200:].reshape(40, outputs)
    assert final.regression is not None
    assert final.regression.mse == pytest.approx(mean_squared_error(wanted, found))
    assert final.regression.mae == pytest.approx(mean_absolute_error(wanted, found))
    assert final.regression.r2 == pytest.approx(r2_score(wanted, found)) == final.score
    assert final.regression.r2 > 0.9
    assert final.test_loss == pytest.approx(final.regression.mse)  # the default loss
    assert final.test_accuracy is None
    last = history.records[-1]
    assert last.classes is None
    assert last.clients is not None
    assert last.clients.mean is None
    assert np.mean([loss for loss in last.clients.loss if loss is not None]) == pytest.approx(final.test_loss)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best"]["regression"]["r2"] == final.score
    assert "test R² 0.9" in repr(history)
    comparison = fedopt.compare([history])
    assert comparison.table[0]["test_r2"] == final.score
    assert "final R²" in repr(comparison)
    assert {"r2", "loss"} <= set(comparison.figures)
    assert "accuracy" not in comparison.figures
    assert len(history.plot().axes) == 3
    beside = fedopt.run(experiment(run={"workers": 2}), data=data(targets))
    assert beside.summary.weights_sha256 == history.summary.weights_sha256


def test_errors_are_those_of_scikit_learn() -> None:
    outputs, targets = torch.from_numpy(Y[:9] + 0.3), torch.from_numpy(Y[:9]).clone()
    targets[:, 1] = 2.0
    found = Regression.of(outputs, targets)
    assert found.r2 == pytest.approx(r2_score(targets, outputs))
    assert found.mse == pytest.approx(mean_squared_error(targets, outputs))
    same = Regression.of(targets, targets)
    assert (same.mse, same.mae, same.r2) == (0, 0, r2_score(targets, targets))


def test_several_labels_count_one_by_one() -> None:
    keys = {"loss": "binary_cross_entropy_with_logits"}
    history = fedopt.run(experiment(model=keys, local={"lr": 0.5}), data=data(LABELS))
    with torch.no_grad():
        found = (history.model()(torch.from_numpy(X[200:])) > 0).numpy()
    classes = history.records[-1].classes
    assert classes is not None
    each = [accuracy_score(LABELS[200:, label], found[:, label]) for label in range(3)]
    assert classes.accuracy == pytest.approx(each)
    assert history.summary.final.test_accuracy == pytest.approx(np.mean(each))
    assert history.summary.final.score > 0.8
    by_module = fedopt.run(experiment(local={"lr": 0.5}), data=data(LABELS), model=(linear, nn.BCEWithLogitsLoss()))
    assert by_module.summary.final.test_accuracy is not None


def linear(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(sample_shape[0], classes))


def test_distributions_count_by_their_most_likely_class() -> None:
    soft = np.exp(2 * Y) / np.exp(2 * Y).sum(1, keepdims=True)
    history = fedopt.run(experiment(model={"loss": "kl_div"}, local={"lr": 0.5}), data=data(soft))
    with torch.no_grad():
        found = history.model()(torch.from_numpy(X[200:])).argmax(1)
    right = accuracy_score(soft[200:].argmax(1), found)
    assert history.summary.final.test_accuracy == right > 0.7


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean(1)


@pytest.mark.parametrize(
    ("targets", "sections", "told"),
    [
        (Y, {"model": {"loss": "cross_entropy"}}, "model.loss: cross_entropy takes classes"),
        (Y, {"model": {"label_smoothing": 0.1}}, "model.loss: cross_entropy takes classes"),
        (Y, {"model": {"loss": "kl_div"}}, "model.loss: kl_div takes distributions"),
        (Y, {"model": {"loss": "binary_cross_entropy_with_logits"}}, "takes labels from 0 to 1"),
        (Y, {"data": {"partition": "dirichlet"}}, "data.partition: dirichlet spreads classes over clients"),
        (Y, {"run": {"target_accuracy": 0.9}}, "run.target_accuracy: the data have numbers to predict"),
    ],
)
def test_what_does_not_fit_numbers_is_refused(targets: np.ndarray, sections: dict[str, Any], told: str) -> None:
    with pytest.raises((InvalidExperiment, PartitionImpossible), match=told):
        fedopt.run(experiment(**sections), data=data(targets))


def test_whole_floats_are_not_taken_for_numbers_or_classes() -> None:
    with pytest.raises(DataUnavailable, match=r"numbers to predict are rows, \[n, 1\] for one"):
        fedopt.Data(X, np.arange(240.0))
    with pytest.raises(DataUnavailable, match="NaN or infinite values in y_train"):
        fedopt.Data(X, np.full((240, 1), np.nan))
    assert "2 outputs" in repr(data(Y))


def test_numbers_from_an_npz_and_a_table_are_those_of_arrays(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    expected = fedopt.run(experiment(), data=data(Y[:, 0])).summary
    np.savez(tmp_path / "own.npz", x_train=X[:200], y_train=Y[:200, 0], x_test=X[200:], y_test=Y[200:, 0])
    own = {"name": "npz", "path": str(tmp_path / "own.npz"), "partition": "iid"}
    assert fedopt.run(experiment(data=own)).summary.weights_sha256 == expected.weights_sha256
    frame = pandas.DataFrame(X, columns=list("abcde")).assign(price=Y[:, 0])
    frame[:200].to_csv(tmp_path / "train.csv", index=False)
    frame[200:].to_csv(tmp_path / "test.csv", index=False)
    table = {"name": "table", "path": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")}
    keys = {"label": "price", "targets": "numbers", "standardize": False}
    assert fedopt.run(experiment(data={**table, **keys})).summary.weights_sha256 == expected.weights_sha256
