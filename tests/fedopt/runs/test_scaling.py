"""`history.prepare` shifts and scales raw samples as the run's training data were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedopt
from fedopt.errors import BrokenRun, InvalidExperiment

pd = pytest.importorskip("pandas")

ONE_ROUND = {"rounds": 1, "workers": 1}


def accuracy(history: fedopt.History, raw: Any, y: Any) -> float:
    with torch.no_grad():
        chosen = history.model()(history.prepare(raw)).argmax(1)
    return float((chosen == torch.as_tensor(np.array(y))).double().mean())


def table(rows: int) -> Any:
    rng = np.random.default_rng(rows)
    frame = pd.DataFrame({"age": rng.normal(50, 12, rows), "income": rng.normal(4e4, 9e3, rows)})
    return frame.assign(label=(frame["age"] + rng.normal(0, 3, rows) > 50).astype(int))


def test_rows_of_a_table_are_scaled_by_the_training_set_without_what_is_held_out(tmp_path: Path) -> None:
    frame = table(200)
    data = fedopt.Data.from_pandas(frame, label="label")
    history = fedopt.run(
        fedopt.Experiment(data={"validation": 0.25, "clients": 4, "alpha": 1.0}, run=ONE_ROUND),
        tmp_path / "run",
        data=data,
    )
    features = frame[["age", "income"]]
    prepared = history.prepare(features)
    held = data.dataset.x_train.double()
    # The 150 rows that were trained on have mean 0 and variance 1, so the shift is theirs: invert it and compare.
    scale = (held[1] - held[0]) / (prepared[1] - prepared[0]).double()
    shift = held[0] - scale * prepared[0].double()
    subsets = torch.linalg.vector_norm((held - shift) / scale - prepared.double(), dim=1)
    assert float(subsets.max()) < 1e-5
    assert not torch.allclose(shift, held.mean(0), rtol=1e-6)
    assert prepared.dtype == torch.float32
    test = fedopt.Data.from_pandas(frame[:150], label="label", test=frame[150:])
    alone = fedopt.run(fedopt.Experiment(data={"clients": 4, "alpha": 1.0}, run=ONE_ROUND), tmp_path / "b", data=test)
    mean, deviation = features[:150].mean(), features[:150].std(ddof=0)
    expected = ((features[150:] - mean) / deviation).to_numpy()
    np.testing.assert_allclose(alone.prepare(features[150:]).numpy(), expected, rtol=1e-5, atol=1e-6)
    rate = accuracy(fedopt.load(tmp_path / "b"), features[150:], frame["label"][150:])
    assert rate == pytest.approx(alone.summary.final.test_accuracy, abs=1e-9)


def test_images_are_scaled_by_channel_and_other_arrays_are_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 256, (60, 3, 5, 5), dtype=np.uint8), np.arange(60) % 3
    experiment = fedopt.Experiment(data={"clients": 3, "partition": "iid"}, model={"name": "logistic"}, run=ONE_ROUND)
    images = fedopt.run(experiment, tmp_path / "images", data=fedopt.Data(x[:40], y[:40], x[40:], y[40:]))
    train = x[:40].astype(np.float64)
    mean, deviation = train.mean((0, 2, 3), keepdims=True), train.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(images.prepare(x[40:]).numpy(), (x[40:] - mean) / deviation, rtol=1e-5, atol=1e-5)
    assert accuracy(images, x[40:], y[40:]) == pytest.approx(images.summary.final.test_accuracy, abs=1e-9)
    plain = fedopt.run(experiment, tmp_path / "plain", data=fedopt.Data(x[:40] / 255, y[:40], x[40:] / 255, y[40:]))
    np.testing.assert_allclose(plain.prepare(x / 255).numpy(), (x / 255).astype(np.float32))


def test_what_cannot_be_prepared_is_refused(tmp_path: Path) -> None:
    data = fedopt.Data.from_pandas(table(60), label="label")
    history = fedopt.run(
        fedopt.Experiment(data={"validation": 0.2, "clients": 3, "alpha": 9.0}, run=ONE_ROUND),
        tmp_path / "r",
        data=data,
    )
    with pytest.raises(InvalidExperiment, match=r"^prepare: the model takes samples of the shape \(2,\), n of them as"):
        history.prepare(np.zeros((4, 3)))
    with pytest.raises(InvalidExperiment, match=r"^prepare: samples must be numbers"):
        history.prepare([["old", "rich"]])
    (history.directory / "scaling.safetensors").unlink()
    with pytest.raises(BrokenRun, match=r"has no scaling\.safetensors"):
        history.prepare(np.zeros((4, 2)))
