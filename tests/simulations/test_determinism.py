"""The same experiment gives the same bits: on any number of lanes, resumed or not, whatever ran before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedopt

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


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
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


@pytest.mark.parametrize("model", ["logistic", "cnn-mcmahan", "resnet8"])
def test_lanes_do_not_change_the_weights_of_any_model(tmp_path: Path, model: str) -> None:
    quick = {"epochs": None, "steps": 2}
    found = {
        sha256(tmp_path / str(lanes), model={"name": model}, local=quick, lanes=lanes, rounds=1) for lanes in (1, 3, 7)
    }
    assert len(found) == 1


def test_the_two_roads_agree_to_rounding(tmp_path: Path) -> None:
    def weights(road: str) -> dict[str, torch.Tensor]:
        experiment = fedopt.Experiment(
            model={"name": "mlp", "hidden": [16]},
            algorithm={"name": "scaffold"},
            local={"momentum": 0.9, "epochs": 2},
            run={**SMALL, "gradients": road},
        )
        return fedopt.run(experiment, tmp_path / road).weights

    each, vmap = weights("each"), weights("vmap")
    assert all(torch.allclose(each[name], vmap[name], rtol=1e-12, atol=1e-14) for name in each)


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
