"""The presets of FedAvg with a server optimizer, DiLoCo and FedSGD: against their papers and what they reduce to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fedopt
from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.errors import InvalidExperiment
from fedopt.family import as_member
from fedopt.optimizers.local import LocalSettings
from simulations.embedded import resume
from tests.fedopt.algorithms.papers.diloco import diloco
from tests.fedopt.algorithms.papers.fedopt_server import Server, adaptive, momentum
from tests.fedopt.algorithms.papers.fedopt_server import fedopt as fedopt_paper
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, Played, errors


def named(name: str, **keys: Any) -> Algorithm:
    """As TOML gives it."""
    algorithm = as_member(ALGORITHMS, "fedavg")({"name": name, **keys})
    assert isinstance(algorithm, Algorithm)
    return algorithm


def same_bits(one: list[Played], other: list[Played]) -> bool:
    return all(a.x.equal(b.x) for (a, *_), (b, *_) in zip(one, other, strict=True))


PRESETS: dict[str, Callable[[], Server]] = {
    "fedavgm": lambda: momentum(1.0, 0.9, nesterov=False),
    "fedadagrad": lambda: adaptive("adagrad", 0.1, 0.0, 0.0, 1e-3),
    "fedadam": lambda: adaptive("adam", 0.01, 0.9, 0.99, 1e-3),
    "fedyogi": lambda: adaptive("yogi", 0.01, 0.9, 0.99, 1e-3),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_papers_settings(name: str) -> None:
    problem, local = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    expected = fedopt_paper(problem, local, 3, 5, PRESETS[name]())
    assert max(errors(problem.play(named(name), local, 3, 5), expected)) < 1e-9


@pytest.mark.parametrize("name", ["quadratic-equal", "quadratic-unequal", "network-equal", "network-unequal"])
@pytest.mark.parametrize("cohort", [5, 2])
def test_diloco_is_the_papers(name: str, cohort: int) -> None:
    problem, local = PROBLEMS[name], LocalSettings(**{**LOCALS["adamw"], "state": "keep"})
    expected = diloco(problem, local, cohort, 4, 0.7, 0.9)
    assert max(errors(problem.play(named("diloco"), local, cohort, 4), expected)) < 1e-9


def test_without_momentum_they_are_fedavg_to_the_bit() -> None:
    problem = PROBLEMS["network-unequal"]
    for local in (LocalSettings(**LOCALS["momentum"]), LocalSettings(**{**LOCALS["adamw"], "state": "keep"})):
        plain = problem.play(FedAvg(), local, 3, 4)
        assert same_bits(problem.play(named("fedavgm", server_momentum=0.0), local, 3, 4), plain)
        outer = {"server_lr": 1.0, "server_momentum": 0.0, "server_nesterov": False}
        assert same_bits(problem.play(named("diloco", **outer), local, 3, 4), plain)
        assert not same_bits(problem.play(named("diloco"), local, 3, 4), plain)


@pytest.mark.parametrize("name", ["quadratic-unequal", "network-unequal"])
def test_fedsgd_steps_along_the_mean_gradient(name: str) -> None:
    problem, local = PROBLEMS[name], LocalSettings(lr=0.2, steps=1, batch_size="full")
    x, p = problem.start, problem.weights()
    played = problem.play(named("fedsgd"), local, 3, 4)
    for (_, cohort), (state, _, _) in zip(problem.rounds(3, 4), played, strict=True):
        gradients = torch.stack([problem.gradient(i, x) for i in cohort])
        x = x - 0.2 * p[cohort] @ gradients / p[cohort].sum()
        assert torch.allclose(state.x, x, rtol=1e-12, atol=1e-14)


def test_fedsgd_takes_one_step_and_says_so() -> None:
    experiment = fedopt.Experiment(algorithm={"name": "fedsgd"})
    assert (experiment.local.steps, experiment.local.epochs, experiment.local.batch_size) == (1, None, "full")
    assert fedopt.Experiment(algorithm={"name": "fedsgd"}, local={"batch_size": 32}).local.steps == 1
    assert fedopt.Experiment(algorithm={"name": "fedsgd"}, local={"epochs": 1}).local.epochs == 1
    for local in ({"steps": 2}, {"epochs": 1, "batch_size": 8}, {"epochs": 2}):
        with pytest.raises(InvalidExperiment, match=r"^algorithm.name: fedsgd takes one local step a round; leave out"):
            fedopt.Experiment(algorithm={"name": "fedsgd"}, local=local)


def test_diloco_keeps_the_moments_of_adamw_unless_told_otherwise() -> None:
    experiment = fedopt.Experiment(algorithm={"name": "diloco"})
    assert (experiment.local.optimizer.name, experiment.local.state, experiment.local.lr) == ("adamw", "keep", 4e-4)
    assert experiment.local.optimizer.model_dump()["weight_decay"] == 0.1
    asked = fedopt.Experiment(algorithm={"name": "diloco"}, local={"optimizer": "sgd", "lr": 0.1, "state": "reset"})
    assert (asked.local.optimizer.name, asked.local.state, asked.local.lr) == ("sgd", "reset", 0.1)
    assert asked.local.optimizer.model_dump()["weight_decay"] == 0


@pytest.mark.parametrize(
    ("name", "server", "stands_for"),
    [("fedadam", "sgd", "adam"), ("fedyogi", "adam", "yogi"), ("fedavgm", "adagrad", "sgd"), ("diloco", "adam", "sgd")],
)
def test_a_preset_with_another_server_optimizer_is_refused(name: str, server: str, stands_for: str) -> None:
    with pytest.raises(InvalidExperiment) as raised:
        fedopt.Experiment(algorithm={"name": name, "server": server})
    assert str(raised.value) == (
        f"algorithm.server: {name} steps with {stands_for}, not {server}; leave out algorithm.server, or choose fedavg "
        f"with algorithm.server = {server}"
    )


def test_defaults_of_a_preset_are_no_keys_that_were_given() -> None:
    preset = fedopt.Experiment(algorithm={"name": "fedavgm"})
    assert preset.algorithm.model_dump()["server_momentum"] == 0.9
    assert preset.replace(algorithm="fedavg") == fedopt.Experiment(), "they go with it"
    asked = fedopt.Experiment(algorithm={"name": "fedavgm", "server_momentum": 0.5})
    assert asked.replace(algorithm="fedavg").algorithm.model_dump()["server_momentum"] == 0.5
    assert asked.replace(algorithm={"server_nesterov": True}).algorithm.model_dump()["server_momentum"] == 0.5
    assert fedopt.Experiment(**preset.model_dump()) == preset


@pytest.mark.parametrize("keys", [{"name": "fedadam"}, {"name": "scaffold", "server": "yogi"}, {"name": "fedacg"}])
def test_a_run_that_was_stopped_ends_with_the_same_bits(keys: dict[str, Any], tmp_path: Path) -> None:
    def digits(rounds: int) -> fedopt.Experiment:
        run = {"rounds": rounds, "participation": 0.5, "device": "cpu", "workers": 1, "checkpoint_every": 1}
        return fedopt.Experiment(data={"clients": 6}, algorithm=keys, local={"epochs": 1}, run=run)

    whole = fedopt.run(digits(3), tmp_path / "whole")
    fedopt.run(digits(1), tmp_path / "stopped")
    resumed = resume(tmp_path / "stopped", ["run.rounds=3"])
    assert resumed.summary.weights_sha256 == whole.summary.weights_sha256
