"""The same experiment gives the same bits: on any number of lanes, resumed or not, whatever ran before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fedopt
from fedopt.data.loading import load_dataset

SMALL: dict[str, Any] = {"rounds": 3, "cohort": 7, "dtype": "float64", "eval_every": 3}


def numpy_state() -> str:
    """All of numpy's global generator."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(state, dict)
    return f"{state['state']['key'].tolist()} {state['state']['pos']}"


def sha256(out: Path, *, model: Any = None, algorithm: str = "fedavg", local: Any = None, **run: Any) -> str:
    experiment = fedopt.Experiment(
        model=model or {"name": "mlp", "hidden": [16]},
        algorithm={"name": algorithm},
        local={"epochs": 2, "batch_size": 10, **(local or {})},
        run={**SMALL, **run},
    )
    return fedopt.run(experiment, out).summary.weights_sha256


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tmp_path: Path, algorithm: str, dtype: str
) -> None:
    first = sha256(tmp_path / "a", algorithm=algorithm, dtype=dtype)
    assert sha256(tmp_path / "b", algorithm=algorithm, dtype=dtype) == first
    assert sha256(tmp_path / "c", algorithm=algorithm, dtype=dtype, seed=1) != first


@pytest.mark.parametrize("algorithm", [pytest.param("fedavg", marks=pytest.mark.slow), "scaffold"])
@pytest.mark.parametrize(
    "local",
    [
        {"momentum": 0.9},
        {"optimizer": "adam", "lr": 0.003},
        {"optimizer": "sam", "rho": 0.1},
        {"clip": 0.5},
        {"batch_size": "full"},
    ],
    ids=["momentum", "adam", "sam", "clip", "full"],
)
def test_lanes_do_not_change_the_weights(tmp_path: Path, algorithm: str, local: dict[str, Any]) -> None:
    found = {
        sha256(tmp_path / str(lanes), algorithm=algorithm, local=local, lanes=lanes) for lanes in (1, 2, 5, "auto")
    }
    assert len(found) == 1


@pytest.mark.parametrize("model", ["logistic", pytest.param("cnn-mcmahan", marks=pytest.mark.slow), "resnet8"])
def test_lanes_do_not_change_the_weights_of_any_model(tmp_path: Path, model: str) -> None:
    quick = {"epochs": None, "steps": 2}
    found = {
        sha256(tmp_path / str(lanes), model={"name": model}, local=quick, lanes=lanes, rounds=1) for lanes in (1, 3, 7)
    }
    assert len(found) == 1


def test_the_two_roads_agree_to_rounding(tmp_path: Path) -> None:
    def weights(backend: str) -> dict[str, torch.Tensor]:
        experiment = fedopt.Experiment(
            model={"name": "mlp", "hidden": [16]},
            algorithm={"name": "scaffold"},
            local={"momentum": 0.9, "epochs": 2},
            run={**SMALL, "backend": backend},
        )
        return fedopt.run(experiment, tmp_path / backend).weights

    each, vmap = weights("each"), weights("vmap")
    assert all(torch.allclose(each[name], vmap[name], rtol=1e-12, atol=1e-14) for name in each)


class Dropping(nn.Module):
    """Dropout, and a layer that has no rule."""

    def __init__(self, features: int, classes: int, p: float) -> None:
        super().__init__()
        self.first, self.head, self.p = nn.Linear(features, 11), nn.Linear(11, classes), p

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.dropout(F.softplus(self.first(x)), self.p, self.training))
        return logits


def dropping(sample_shape: tuple[int, ...], classes: int, p: float) -> nn.Module:
    return Dropping(sample_shape[0], classes, p)


class Recurrent(nn.Module):
    """Reads a row as a sequence; its LSTM puts out a tuple of tensors and tuples."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(1, 7, batch_first=True), nn.Linear(7, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cells(x[..., None])
        logits: Tensor = self.head(states[:, -1])
        return logits


def recurrent(classes: int) -> nn.Module:
    return Recurrent(classes)


def write_table(folder: Path) -> Path:
    """Rows of five features, whose bytes are no multiple of anything that a processor likes."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((260, 5)), rng.integers(0, 3, 260)
    x[np.arange(260), y] += 1.0
    file = folder / "table.npz"
    np.savez(file, x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    return file


HERE = "tests.simulations.test_determinism"
MODELS: dict[str, dict[str, Any]] = {
    "recurrent": {"name": f"{HERE}:recurrent"},
    "dropout": {"name": f"{HERE}:dropping", "p": 0.4},
    "stacked": {"name": "mlp", "hidden": [9]},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", MODELS)
def test_lanes_workers_and_a_stop_change_no_digit_of_any_record(tmp_path: Path, model: str, dtype: str) -> None:
    file = write_table(tmp_path)

    def records(name: str, stop: int | None = None, **run: Any) -> list[dict[str, Any]]:
        experiment = fedopt.Experiment(
            data={"name": "npz", "path": str(file), "clients": 7, "alpha": 0.5},
            model=MODELS[model],
            algorithm={"name": "scaffold"},
            local={"epochs": 1, "batch_size": 7},
            run={"rounds": stop or 3, "cohort": 5, "dtype": dtype, **run},
            metrics={"drift_every": 1, "clients_every": 1},
        )
        history = fedopt.run(experiment, tmp_path / name)
        if stop is not None:
            history = fedopt.resume(tmp_path / name, ["run.rounds=3"])
        hash_ = {"weights": history.summary.weights_sha256}
        return [*(record.model_dump(exclude={"seconds"}) for record in history.records), hash_]

    alone = records("alone", workers=1, lanes=1)
    assert records("beside", workers=1, lanes=4) == alone
    assert records("workers", workers=2, lanes=2) == alone
    assert records("resumed", stop=2, workers=2, lanes=1) == alone


def test_dropout_trains_and_its_score_is_that_of_the_saved_model(tmp_path: Path) -> None:
    """Evaluation is in eval mode: the weights in the file reproduce what the summary says."""
    file = write_table(tmp_path)
    history = fedopt.run(
        fedopt.Experiment(
            data={"name": "npz", "path": str(file), "clients": 4, "alpha": 10.0},
            model=MODELS["dropout"],
            local={"epochs": 3, "lr": 0.1},
            run={"rounds": 5, "cohort": 4, "dtype": "float64"},
        ),
        tmp_path / "run",
    )
    module = Dropping(5, 3, 0.4).double().eval()
    module.load_state_dict(history.weights)
    dataset = load_dataset(history.experiment.data, 0)
    with torch.no_grad():
        outputs = module(dataset.x_test.double())
    final = history.summary.final
    assert final.test_accuracy == (outputs.argmax(1) == dataset.y_test).double().mean().item()
    assert final.test_loss == pytest.approx(F.cross_entropy(outputs, dataset.y_test).item(), rel=1e-12)
    assert final.score > 0.5


def test_a_run_leaves_the_global_generators_and_the_thread_count_alone(tmp_path: Path) -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    before = random.getstate(), numpy_state(), torch.get_rng_state()
    threads = torch.get_num_threads()
    sha256(tmp_path / "run", algorithm="scaffold", local={"optimizer": "adam"})
    assert random.getstate() == before[0]
    assert numpy_state() == before[1]
    assert torch.get_rng_state().equal(before[2])
    assert torch.get_num_threads() == threads


def test_resuming_in_between_changes_nothing(tmp_path: Path) -> None:
    def experiment(rounds: int) -> fedopt.Experiment:
        return fedopt.Experiment(
            algorithm={"name": "scaffold"},
            local={"momentum": 0.9},
            run={"rounds": rounds, "cohort": 3},
            metrics={"drift_every": 1, "clients_every": 1, "divergence": True},
        )

    whole = fedopt.run(experiment(9), tmp_path / "whole")
    fedopt.run(experiment(4), tmp_path / "parts")
    fedopt.resume(tmp_path / "parts", ["run.rounds=5", "run.lanes=2"])
    parts = fedopt.resume(tmp_path / "parts", ["run.rounds=9"])
    assert parts.summary.weights_sha256 == whole.summary.weights_sha256
    timeless = [record.model_dump(exclude={"seconds"}) for record in parts.records]
    assert timeless == [record.model_dump(exclude={"seconds"}) for record in whole.records]
