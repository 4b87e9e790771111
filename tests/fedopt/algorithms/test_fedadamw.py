"""FedAdamW and FedLADA against their papers, what they reduce to, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedadamw import FedAdamW
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.fedlada import FedLADA
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.optimizers.adamw import AdamW
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.fedadamw import fedadamw
from tests.fedopt.algorithms.papers.fedlada import fedlada
from tests.fedopt.algorithms.papers.setting import PROBLEMS, errors

ROUNDS = 4
BLOCKS = {"network": (12, 4, 12, 3), "quadratic": (4,)}
WORK = {"epochs": 2, "batch_size": 3, "lr": 0.02, "betas": (0.8, 0.95)}


def adamw(state: str) -> LocalSettings:
    return LocalSettings(optimizer="adamw", weight_decay=0.1, eps=1e-3, state=state, **WORK)


def amsgrad() -> LocalSettings:
    return LocalSettings(optimizer="amsgrad", eps=0.05, state="average-v", **WORK)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("cohort", "state"), [(5, "block-v"), (3, "block-v"), (3, "average-v")])
def test_fedadamw_is_the_papers(name: str, cohort: int, state: str) -> None:
    problem = PROBLEMS[name]
    blocks = BLOCKS[name.split("-")[0]] if state == "block-v" else None
    played = problem.play(FedAdamW(alpha=0.4), adamw(state), cohort, ROUNDS)
    assert max(errors(played, fedadamw(problem, adamw(state), cohort, ROUNDS, 0.4, blocks))) < 1e-9


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("cohort", "server_lr"), [(5, 1.0), (3, 0.7)])
def test_fedlada_is_the_papers(name: str, cohort: int, server_lr: float) -> None:
    problem = PROBLEMS[name]
    played = problem.play(FedLADA(alpha=0.3, server_lr=server_lr), amsgrad(), cohort, ROUNDS)
    assert max(errors(played, fedlada(problem, amsgrad(), cohort, ROUNDS, 0.3, server_lr))) < 1e-9


@pytest.mark.parametrize(
    ("algorithm", "local"),
    [(FedAdamW(alpha=0.0, server_lr=0.7), adamw("block-v")), (FedLADA(alpha=1.0, server_lr=0.7), amsgrad())],
    ids=["fedadamw", "fedlada"],
)
def test_without_the_global_direction_they_are_fedavg_to_the_bit(algorithm: Algorithm, local: LocalSettings) -> None:
    problem = PROBLEMS["network-unequal"]
    found, plain = (problem.play(each, local, 3, ROUNDS) for each in (algorithm, FedAvg(server_lr=0.7)))
    assert all(a.x.equal(b.x) for (a, *_), (b, *_) in zip(found, plain, strict=True))


def test_a_direction_that_stays_adds_up_to_its_series() -> None:
    """Gradients of one sign: Adam's direction is 1 in each step, whatever their size, and G is 1, 1 + alpha, ..."""
    problem, local = PROBLEMS["quadratic-equal"], adamw("reset").model_copy(update={"eps": 1e-12, "weight_decay": 0.0})
    far = local.model_copy(update={"lr": 1e-9, "betas": (0.0, 0.0)})
    p, x = problem.weights(), problem.start
    one = p @ torch.stack([problem.gradient(i, x).sign() for i in range(5)])
    played = problem.play(FedAdamW(alpha=0.5), far, 5, 4)
    for (state, _, _), factor in zip(played, (1, 1.5, 1.75, 1.875), strict=True):
        assert torch.allclose(state.server["G"], factor * one, rtol=1e-5, atol=1e-5)


def test_their_defaults_of_local_are_the_papers_and_the_users_win() -> None:
    adam, lada = (Experiment(algorithm={"name": name}).local for name in ("fedadamw", "fedlada"))
    assert (adam.optimizer.name, adam.state, adam.optimizer.model_dump()["weight_decay"]) == ("adamw", "block-v", 0.01)
    assert (lada.optimizer.name, lada.state) == ("amsgrad", "average-v")
    assert Experiment(algorithm={"name": "fedadamw"}, local={"state": "keep"}).local.state == "keep"


@pytest.mark.parametrize("optimizer", ["amsgrad", AdamW(weight_decay=0.3)])
def test_defaults_of_adamw_are_not_those_of_another_optimizer(optimizer: str | AdamW) -> None:
    experiment = Experiment(algorithm={"name": "fedadamw"}, local={"optimizer": optimizer, "lr": 0.001})
    assert experiment.local.state == "block-v"
    assert experiment.notes() == []
    assert optimizer in (experiment.local.optimizer.name, experiment.local.optimizer)


@pytest.mark.parametrize("name", ["fedadamw", "fedlada"])
def test_an_optimizer_that_adapts_to_nothing_is_refused(name: str) -> None:
    message = rf"{name} needs an adaptive optimizer, such as (adamw|amsgrad); sgd is not adaptive"
    with pytest.raises(InvalidExperiment, match=message):
        Experiment(algorithm={"name": name}, local={"optimizer": "sgd", "state": "reset"})
