"""Ditto against its paper, and its exact reductions."""

from __future__ import annotations

import pytest
import torch

from clients.lanes.backends import Backend
from fedopt.algorithms.ditto import Ditto
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local import LocalOnly
from fedopt.optimizers.local import LocalSettings
from fedopt.schedules.base import Schedule
from tests.fedopt.algorithms.papers.ditto import ditto
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS
from tests.fedopt.algorithms.personal import apart, personal_models, same_bits

LAM = 0.7
CASES = [(name, "unequal-steps") for name in PROBLEMS]
CASES += [("network-unequal", local) for local in LOCALS if local != "unequal-steps"]


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_it_is_the_papers(name: str, local: str, cohort: int) -> None:
    problem, settings, algorithm = PROBLEMS[name], LocalSettings(**LOCALS[local]), Ditto(lam=LAM)
    played = problem.play(algorithm, settings, cohort, 4)
    expected = list(ditto(problem, settings, cohort, 4, LAM))
    assert apart([state.x for state, _, _ in played], [w for w, _ in expected]) < 1e-11
    assert apart(personal_models(algorithm, played), expected[-1][1]) < 1e-11


@pytest.mark.parametrize("backend", ["stacked", "vmap"])
def test_lanes_that_finish_early_keep_their_models(backend: Backend) -> None:
    """Clients take 2 to 6 steps side by side."""
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    algorithm = Ditto(lam=LAM)
    played = problem.play(algorithm, settings, 5, 3, backend=backend)
    *_, (w, models) = ditto(problem, settings, 5, 3, LAM)
    assert apart([played[-1][0].x], [w]) < 1e-11
    assert apart(personal_models(algorithm, played), models) < 1e-11


class Falling(Schedule):
    """Another rate at every step of every round."""

    def rate(self, lr: float, round_: int, step: int) -> float:
        return lr / (round_ + step)


def test_personal_steps_have_the_rates_of_the_global_ones() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(schedule=Falling(), **LOCALS["momentum"])
    algorithm = Ditto(lam=LAM)
    played = problem.play(algorithm, settings, 3, 3)
    *_, (w, models) = ditto(problem, settings, 3, 3, LAM, lambda round_, step: settings.lr / (round_ + step))
    assert apart([played[-1][0].x], [w]) < 1e-11
    assert apart(personal_models(algorithm, played), models) < 1e-11


@pytest.mark.parametrize("local", ["unequal-steps", "adam"])
@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_the_global_model_is_that_of_fedavg_to_the_bit(local: str, lam: float) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS[local])
    found, plain = (problem.play(one, settings, 3, 4) for one in (Ditto(lam=lam), FedAvg()))
    assert same_bits([state.x for state, _, _ in found], [state.x for state, _, _ in plain])


@pytest.mark.parametrize("name", ["network-unequal", "quadratic-unequal"])
def test_without_a_pull_it_is_local_training_to_the_bit(name: str) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS["unequal-steps"])
    beside, alone = Ditto(lam=0.0), LocalOnly()
    expected = personal_models(alone, problem.play(alone, settings, 3, 4))
    assert same_bits(personal_models(beside, problem.play(beside, settings, 3, 4)), expected)


def test_the_fixed_point_is_that_of_the_personal_objective() -> None:
    """min f_i(v) + lam/2 |v - x|^2 at the x that FedAvg leads to: (A_i + lam I) v = b_i + lam x."""
    problem, algorithm = PROBLEMS["quadratic-equal"], Ditto(lam=LAM)
    played = problem.play(algorithm, LocalSettings(lr=0.3, steps=5, batch_size="full"), 5, 60)
    q, x = problem.quadratics, played[-1][0].x  # type: ignore[attr-defined]
    for a, b, v in zip(q.matrices, q.vectors, personal_models(algorithm, played), strict=True):
        pulled = torch.from_numpy(a) + LAM * torch.eye(4).double()
        assert apart([v], [torch.linalg.solve(pulled, torch.from_numpy(b) + LAM * x)]) < 1e-10


def test_an_optimizer_that_evaluates_twice_steps_the_personal_model_once() -> None:
    problem, algorithm = PROBLEMS["network-unequal"], Ditto(lam=LAM)
    once = problem.play(algorithm, LocalSettings(**LOCALS["unequal-steps"]), 5, 1)
    twice = problem.play(algorithm, LocalSettings(optimizer="sam", **LOCALS["unequal-steps"]), 5, 1)
    assert not torch.equal(once[-1][0].x, twice[-1][0].x)
    assert same_bits(personal_models(algorithm, twice), personal_models(algorithm, once))


def test_the_training_loss_is_that_of_the_global_steps() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    found, plain = (problem.play(one, settings, 3, 2) for one in (Ditto(), FedAvg()))
    assert [work.train_loss for _, work, _ in found] == [work.train_loss for _, work, _ in plain]
