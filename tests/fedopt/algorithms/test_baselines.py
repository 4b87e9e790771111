"""Local training, fine-tuned models and central training, against plain loops and what they become at their limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedopt
from clients.lanes.backends import Backend
from fedopt.algorithms.base import Algorithm, own_loop_refusal
from fedopt.algorithms.central import Central
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.finetune import FineTune
from fedopt.algorithms.local import LocalOnly
from fedopt.data.step_counts import StepCounts
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from fedopt.round.loop import RoundWork
from fedopt.round.selection import select_cohort
from fedopt.runs.setup import set_up
from fedopt.vectors.layout import Layout
from server.deployment import open_run
from simulations.centralized import CentralRun
from tests.fedopt.algorithms.papers.baselines import fine_tuning, local_training
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, NetworkProblem
from tests.fedopt.algorithms.personal import apart, personal_models, same_bits

CASES = [(name, "unequal-steps") for name in PROBLEMS]
CASES += [("network-unequal", local) for local in LOCALS if local != "unequal-steps"]


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_local_is_each_client_alone(name: str, local: str, cohort: int) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    played = problem.play(LocalOnly(), settings, cohort, 4)
    *_, models = local_training(problem, settings, cohort, 4)
    assert all(torch.equal(state.x, problem.start) for state, _, _ in played)
    assert apart(personal_models(LocalOnly(), played), models) < 1e-11


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_fine_tuned_models_are_the_clients_last_ones(name: str, local: str, cohort: int) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    played = problem.play(FineTune(), settings, cohort, 4)
    *_, models = fine_tuning(problem, settings, cohort, 4)
    assert apart(personal_models(FineTune(), played), models) < 1e-11
    plain = problem.play(FedAvg(), settings, cohort, 4)
    assert same_bits([state.x for state, _, _ in played], [state.x for state, _, _ in plain])


def test_a_client_that_has_never_trained_uses_the_global_model_when_it_fine_tunes() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    played = problem.play(FineTune(), settings, 2, 1)
    state, work, _ = played[-1]
    uses_x = [torch.equal(model, state.x) for model in personal_models(FineTune(), played)]
    assert uses_x == [client not in work.cohort for client in range(5)]


@pytest.mark.parametrize("backend", ["stacked", "vmap"])
@pytest.mark.parametrize("kind", [LocalOnly, FineTune])
def test_lanes_of_models_without_gaps_keep_their_own(backend: Backend, kind: type[Algorithm]) -> None:
    """Rows of 16 float64 are packed without gaps, so that what clients keep could be views of what others overwrite."""
    torch.manual_seed(0)
    problem = NetworkProblem((2, 9, 5, 3, 7))
    problem._module = torch.nn.Sequential(torch.nn.Linear(3, 48, bias=False), torch.nn.Tanh(), torch.nn.Linear(48, 16))
    problem._module = problem._module.double()
    settings = LocalSettings(lr=0.05, epochs=2, batch_size=4)
    assert all(n % 16 == 0 for n in Layout.of(problem._module).sizes)
    played = problem.play(kind(), settings, 5, 2, backend=backend)
    *_, models = (local_training if kind is LocalOnly else fine_tuning)(problem, settings, 5, 2)
    assert apart(personal_models(kind(), played), models) < 1e-11


def test_one_client_alone_is_central_training() -> None:
    """The reference is FedAvg with one client, whose server takes the client's model up to rounding."""
    problem, settings = NetworkProblem((9,)), LocalSettings(**LOCALS["unequal-steps"])
    central = problem.play(FedAvg(), settings, 1, 4)
    assert apart(personal_models(LocalOnly(), problem.play(LocalOnly(), settings, 1, 4)), [central[-1][0].x]) < 1e-14


SECTIONS: dict[str, Any] = {
    "data": {"clients": 6, "partition": "dirichlet", "alpha": 0.3},
    "run": {"rounds": 4, "cohort": 2, "seed": 3, "dtype": "float64"},
    "local": {"lr": 0.1, "momentum": 0.5, "epochs": 1},
}


@pytest.mark.parametrize("work", [{"epochs": 1}, {"steps": 3}, {"epochs": "uniform(1, 3)"}], ids=str)
def test_central_is_the_centralized_run_of_the_same_samples(tmp_path: Path, work: dict[str, Any]) -> None:
    sections = {**SECTIONS, "local": {"lr": 0.1, "momentum": 0.5, **work}}
    experiment = fedopt.Experiment(algorithm={"name": "central"}, **sections)
    found = fedopt.run(experiment, tmp_path / "central")
    setup = set_up(experiment)
    fedavg = fedopt.run(fedopt.Experiment(**sections), tmp_path / "fedavg").records
    counts = client_sizes(tmp_path / "central")
    data = (setup.dataset.x_train, setup.dataset.y_train)
    reference = CentralRun(setup.problem.task, StepCounts(experiment.local, 3), data, counts)
    weights = torch.cat([found.weights[name].reshape(-1) for name in Layout.of(setup.problem.task.module).names])
    for record, federated in zip(found.records, fedavg, strict=True):
        cohort = select_cohort(6, 2, 3, record.round)
        assert federated.cohort == cohort
        assert record.samples == len(data[1])
        done = RoundWork(record.round, cohort, {}, 1, 1, 0.0, 0.0, 0, 0, 0.0)
        distance = reference.divergence(weights, done)
    assert distance is not None
    assert distance < 1e-15


def client_sizes(path: Path) -> list[int]:
    sizes: list[int] = json.loads((path / "partition.json").read_text())["sizes"]
    return sizes


def test_central_goes_on_from_a_checkpoint_with_its_moments(tmp_path: Path) -> None:
    sections = {**SECTIONS, "local": {**SECTIONS["local"], "state": "keep"}, "algorithm": {"name": "central"}}
    whole = fedopt.run(fedopt.Experiment(**sections), tmp_path / "whole")
    half = {**sections, "run": {**SECTIONS["run"], "rounds": 2}}
    fedopt.run(fedopt.Experiment(**half), tmp_path / "half")
    resumed = fedopt.resume(tmp_path / "half", ["run.rounds=4"])
    assert resumed.summary.weights_sha256 == whole.summary.weights_sha256
    reset = fedopt.run(fedopt.Experiment(**{**sections, "local": SECTIONS["local"]}), tmp_path / "reset")
    assert reset.summary.weights_sha256 != whole.summary.weights_sha256


def test_central_is_scored_on_every_clients_test_share(tmp_path: Path) -> None:
    experiment = fedopt.Experiment(algorithm={"name": "central"}, **SECTIONS)
    last = fedopt.run(experiment, tmp_path / "run").records[-1]
    assert last.clients is not None
    assert np.isfinite([accuracy for accuracy in last.clients.accuracy if accuracy is not None]).sum() > 3


def test_central_runs_where_the_data_are_and_nowhere_else(tmp_path: Path) -> None:
    told = "central needs the data of all clients in one place; run it with fedopt run"
    with (
        pytest.raises(InvalidExperiment, match=rf"^algorithm.name: {told}$"),
        open_run(fedopt.Experiment(algorithm={"name": "central"}), tmp_path / "run", None, []),
    ):
        pass
    assert not (tmp_path / "run").exists()
    assert not Central().fits_own_loops
    assert own_loop_refusal(Central()) == told


def test_central_weights_samples_alike() -> None:
    with pytest.raises(InvalidExperiment, match=r"^algorithm.name: central counts every sample alike"):
        fedopt.Experiment(algorithm={"name": "central", "weighting": "uniform"})
