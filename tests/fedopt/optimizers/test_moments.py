"""Moments that outlive a round: kept by each client, or averaged by the server, against plain torch.optim."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fedopt
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.optimizers.local import LocalSettings
from fedopt.round.selection import select_cohort
from simulations.embedded import resume
from tests.quadratics import Array, Quadratics, close

SIZES = (1, 2, 3, 1, 2)
ROUNDS, STEPS = 6, 3
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "lr": 0.02},
    "nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "lr": 0.02},
    "adam": {"optimizer": "adam", "lr": 0.05},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "lr": 0.05},
}


def plainly(q: Quadratics, keys: dict[str, Any], cohort_size: int, *, average: bool) -> list[Array]:
    """x after each round of FedAvg by torch.optim, whose state stays with its client or is averaged by hand."""
    local, p = LocalSettings(**keys), q.weights("samples")
    x = torch.from_numpy(q.start.copy())
    own: dict[int, dict[str, Any]] = {}
    common: dict[str, torch.Tensor] | None = None
    found = []
    for round_ in range(1, ROUNDS + 1):
        cohort = select_cohort(len(SIZES), cohort_size, 0, round_)
        moved, states = [], []
        for i in cohort:
            a, b = torch.from_numpy(q.matrices[i]), torch.from_numpy(q.vectors[i])
            y = nn.Parameter(x.clone())
            optimizer = local.optimizer.torch_optimizer([y], local.lr)
            assert optimizer is not None
            before = common if average else own.get(i)
            if before is not None:
                optimizer.state[y] = {name: value.clone() for name, value in before.items()}
            for _ in range(STEPS):
                y.grad = a @ y.detach() - b
                optimizer.step()
            moved.append(y.detach() - x)
            states.append({name: torch.as_tensor(value).clone() for name, value in optimizer.state[y].items()})
            own[i] = states[-1]
        weights = p[cohort] / p[cohort].sum()
        x = x + sum(w * d for w, d in zip(weights, moved, strict=True))
        common = {name: sum(w * s[name] for w, s in zip(weights, states, strict=True)) for name in states[0]}
        found.append(x.numpy().copy())
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("state", ["keep", "average"])
@pytest.mark.parametrize("cohort", [5, 2])
def test_moments_are_those_of_torch_over_all_rounds(name: str, state: str, cohort: int) -> None:
    q = Quadratics.random(5, sizes=SIZES)
    local = LocalSettings(steps=STEPS, batch_size="full", state=state, **OPTIMIZERS[name])
    expected = plainly(q, OPTIMIZERS[name], cohort, average=state == "average")
    for (found, _, _), x in zip(islice(q.play(FedAvg(), local, cohort), ROUNDS), expected, strict=True):
        assert close(found.x, x, 1e-10 if "adam" in name else 1e-12)


def test_without_kept_moments_the_rounds_are_others() -> None:
    q = Quadratics.random(5, sizes=SIZES)
    reset = LocalSettings(steps=STEPS, batch_size="full", **OPTIMIZERS["momentum"])
    *_, (state, _, _) = islice(q.play(FedAvg(), reset, 5), ROUNDS)
    for average in (False, True):
        assert not close(state.x, plainly(q, OPTIMIZERS["momentum"], 5, average=average)[-1], 1e-3)


@pytest.mark.slow
def test_scaffold_keeps_its_exact_optimum_with_kept_momentum() -> None:
    q = Quadratics.random(5, sizes=SIZES)
    local = LocalSettings(steps=STEPS, batch_size="full", state="keep", **OPTIMIZERS["momentum"])
    *_, (state, _, _) = islice(q.play(Scaffold(), local, 5), 1500)
    assert close(state.x, q.optimum("samples"), 1e-10)


def digits(**sections: Any) -> fedopt.Experiment:
    local = {"optimizer": "adam", "lr": 0.001, "epochs": 1, **sections.pop("local")}
    run = {"rounds": 3, "participation": 0.5, "device": "cpu", **sections.pop("run", {})}
    return fedopt.Experiment(data={"clients": 6}, local=local, run=run, **sections)


@pytest.mark.parametrize("state", ["keep", "average"])
def test_lanes_workers_and_a_stop_change_no_digit(state: str, tmp_path: Path) -> None:
    local = {"state": state}
    one = fedopt.run(digits(local=local, run={"workers": 1, "lanes": 3}), tmp_path / "one")
    two = fedopt.run(digits(local=local, run={"workers": 2, "lanes": 1}), tmp_path / "two")
    assert two.summary.weights_sha256 == one.summary.weights_sha256
    fedopt.run(digits(local=local, run={"rounds": 1}), tmp_path / "stopped")
    resumed = resume(tmp_path / "stopped", ["run.rounds=3"])
    assert resumed.summary.weights_sha256 == one.summary.weights_sha256
    reset = fedopt.run(digits(local={}), tmp_path / "reset")
    assert reset.summary.weights_sha256 != one.summary.weights_sha256


def test_a_state_that_nothing_has_is_noted() -> None:
    experiment = fedopt.Experiment(local={"state": "keep"})
    assert experiment.notes() == ["local.state is not used by sgd: it has no moments here"]
    assert experiment.method.sends_up == ("dx",)
    assert fedopt.Experiment(local={"state": "average", "momentum": 0.9}).method.sends_up == (
        "dx",
        "optimizer.momentum",
    )
    assert np.isfinite(experiment.local.lr)
