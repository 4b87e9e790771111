"""FedSpeed against its paper, its exact optimum, and FedDyn."""

from __future__ import annotations

from itertools import islice
from typing import Any, Literal

import pytest
import torch

import fedopt
from fedopt.algorithms.feddyn import FedDyn
from fedopt.algorithms.fedspeed import FedSpeed
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.fedspeed import fedspeed
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors
from tests.quadratics import Quadratics, close

LAM, RHO, ALPHA = 0.4, 0.3, 0.7
CASES = [(name, "unequal-steps") for name in PROBLEMS]
CASES += [("network-unequal", local) for local in LOCALS if local != "unequal-steps"]


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
@pytest.mark.parametrize("ascent", ["step", "radius"])
def test_it_is_the_papers(name: str, local: str, cohort: int, ascent: Literal["step", "radius"]) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    played = problem.play(FedSpeed(lam=LAM, rho=RHO, alpha=ALPHA, ascent=ascent), settings, cohort, 4)
    assert max(errors(played, fedspeed(problem, settings, cohort, 4, LAM, RHO, ALPHA, ascent))) < 1e-9


def test_lanes_side_by_side_are_the_papers() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["momentum"])
    played = problem.play(FedSpeed(lam=LAM, rho=RHO, alpha=ALPHA), settings, 3, 3, backend="stacked")
    assert max(errors(played, fedspeed(problem, settings, 3, 3, LAM, RHO, ALPHA, "step"))) < 1e-9


@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("plain", [FedSpeed(lam=LAM, alpha=0.0), FedSpeed(lam=LAM, rho=0.0)], ids=["alpha", "rho"])
def test_with_all_clients_and_no_ascent_it_is_feddyn(local: str, plain: FedSpeed) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS[local])
    speed = problem.play(plain, settings, 5, 4)
    assert max(errors(speed, (state.x for state, _, _ in problem.play(FedDyn(alpha=1 / LAM), settings, 5, 4)))) < 1e-9


def test_its_default_weight_is_that_of_feddyn() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    speed = problem.play(FedSpeed(rho=0.0), settings, 5, 2)
    assert max(errors(speed, (state.x for state, _, _ in problem.play(FedDyn(), settings, 5, 2)))) < 1e-9


@pytest.mark.parametrize("local", [{"steps": 3}, {"epochs": 2, "batch_size": 1}], ids=["equal", "unequal"])
def test_without_the_ascent_all_clients_together_reach_the_exact_optimum(local: dict[str, Any]) -> None:
    q, settings = Quadratics.random(3, sizes=(1, 4, 2)), LocalSettings(**{"batch_size": "full", "lr": 0.3, **local})
    rounds = q.play(FedSpeed(lam=1.0, rho=0.0), settings, cohort=3)
    last = [state for state, _, _ in islice(rounds, 65)][-5:]
    assert all(close(state.x, q.optimum("samples"), 1e-10) for state in last)


def test_half_the_server_rate_goes_half_the_way() -> None:
    problem, settings = PROBLEMS["quadratic-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    ((whole, _, _),), ((half, _, _),) = (
        problem.play(FedSpeed(lam=LAM, server_lr=rate), settings, 2, 1) for rate in (1.0, 0.5)
    )
    assert torch.allclose(half.x, (problem.start + whole.x) / 2, rtol=0, atol=1e-14)


def test_a_term_that_the_steps_overshoot_is_refused() -> None:
    with pytest.raises(InvalidExperiment, match=r"overshoot the proximal term.*local.lr times 1 / algorithm.lam is 5,"):
        fedopt.Experiment(algorithm=FedSpeed(lam=0.01), local={"lr": 0.05})
