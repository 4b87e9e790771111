"""FedPer against its paper, and what it becomes with no private parameters or nothing but these."""

from __future__ import annotations

import pytest
import torch

from clients.lanes.backends import Backend
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.fedper import FedPer, private_names
from fedopt.algorithms.local import LocalOnly
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.fedper import fedper
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS
from tests.fedopt.algorithms.personal import apart, personal_models, same_bits

BASE = 3 * 4 + 4
"""Entries of the network's first layer; the rest are its last layer's."""

CASES = [(name, local) for name in ("network-equal", "network-unequal") for local in LOCALS]


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_it_is_the_papers(name: str, local: str, cohort: int) -> None:
    problem, settings, algorithm = PROBLEMS[name], LocalSettings(**LOCALS[local]), FedPer()
    played = problem.play(algorithm, settings, cohort, 4)
    expected = list(fedper(problem, settings, cohort, 4, BASE))
    for (state, _, _), (shared, _) in zip(played, expected, strict=True):
        assert apart([state.x[:BASE]], [shared]) < 1e-11
        assert torch.equal(state.x[BASE:], problem.start[BASE:]), "the server never has a personalization layer"
    assert apart(personal_models(algorithm, played), expected[-1][1]) < 1e-11


@pytest.mark.parametrize("backend", ["stacked", "vmap"])
def test_lanes_side_by_side_are_the_papers(backend: Backend) -> None:
    problem, settings, algorithm = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["momentum"]), FedPer()
    played = problem.play(algorithm, settings, 5, 3, backend=backend)
    *_, (_, models) = fedper(problem, settings, 5, 3, BASE)
    assert apart(personal_models(algorithm, played), models) < 1e-11


def test_patterns_choose_the_private_parameters() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    first, last = FedPer(private=("0.*",)), FedPer(private=("2.weight", "2.b*"))
    assert torch.equal(problem.play(first, settings, 3, 2)[-1][0].x[:BASE], problem.start[:BASE])
    assert not torch.equal(problem.play(first, settings, 3, 2)[-1][0].x[BASE:], problem.start[BASE:])
    by_pattern, by_default = (personal_models(one, problem.play(one, settings, 3, 2)) for one in (last, FedPer()))
    assert same_bits(by_pattern, by_default)


@pytest.mark.parametrize("local", ["unequal-steps", "adam"])
@pytest.mark.parametrize("server_lr", [1.0, 0.5])
def test_without_private_parameters_it_is_fedavg_to_the_bit(local: str, server_lr: float) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS[local])
    found = problem.play(FedPer(private=(), server_lr=server_lr), settings, 3, 4)
    plain = problem.play(FedAvg(server_lr=server_lr), settings, 3, 4)
    assert same_bits([state.x for state, _, _ in found], [state.x for state, _, _ in plain])


@pytest.mark.parametrize("name", ["network-unequal", "quadratic-unequal"])
def test_with_private_parameters_alone_it_is_local_training(name: str) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS["unequal-steps"])
    alone, algorithm = problem.play(LocalOnly(), settings, 3, 4), FedPer(private=("*",))
    expected = personal_models(LocalOnly(), alone)
    assert apart(personal_models(algorithm, problem.play(algorithm, settings, 3, 4)), expected) < 1e-14


def test_the_last_layer_is_that_of_the_last_parameter() -> None:
    names = ["conv.weight", "conv.bias", "head.norm.weight", "head.fc.weight", "head.fc.bias"]
    assert private_names(("last",), names) == ["head.fc.weight", "head.fc.bias"]
    assert private_names(("head.*",), names) == names[2:]
    assert private_names(("last",), ["weight", "bias"]) == ["weight", "bias"]


def test_a_pattern_that_fits_no_parameter_is_refused() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    told = r"^algorithm.private: no parameter is named '3.weight'; did you mean 2.weight\?"
    with pytest.raises(InvalidExperiment, match=told):
        problem.play(FedPer(private=("2.*", "3.weight")), settings, 2, 1)


def test_the_setting_survives_toml(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("toml") / "experiment.toml"
    for private in (["last"], ["0.*", "last"], []):
        experiment = Experiment(algorithm={"name": "fedper", "private": private})
        experiment.to_toml(file)
        assert Experiment.from_toml(file) == experiment
    with pytest.raises(InvalidExperiment, match=r"algorithm.private"):
        Experiment(algorithm={"name": "fedper", "private": "last"})
