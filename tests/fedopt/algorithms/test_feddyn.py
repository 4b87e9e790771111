"""FedDyn against its paper, and its exact optima."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any, get_args

import pytest
import torch

import fedopt
from fedopt.algorithms.base import Weighting
from fedopt.algorithms.feddyn import FedDyn
from fedopt.algorithms.fedprox import FedProx
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.feddyn import feddyn
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors
from tests.quadratics import Quadratics, close

ALPHA = 0.6
CASES: list[tuple[str, str, Weighting]] = [(name, "unequal-steps", "samples") for name in PROBLEMS]
CASES += [("network-unequal", local, "uniform") for local in LOCALS]


@pytest.mark.parametrize(("name", "local", "weighting"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_it_is_the_papers(name: str, local: str, weighting: Weighting, cohort: int) -> None:
    """x, the server's h and every client's h_i, the ones that were never chosen included."""
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    played = problem.play(FedDyn(alpha=ALPHA, weighting=weighting), settings, cohort, 4)
    expected = list(feddyn(problem, settings, cohort, 4, ALPHA, weighting))
    assert max(errors(played, [x for x, _, _ in expected])) < 1e-9
    for (state, _, _), (_, h, _) in zip(played, expected, strict=True):
        assert torch.allclose(state.server["h"], h, rtol=0, atol=1e-10)
    (state, _, federation), (_, _, gradients) = played[-1], expected[-1]
    for client, h_i in enumerate(gradients):
        found = federation.states.at(client, state.accepted.get(client))["h_i"]
        assert torch.allclose(found, h_i, rtol=0, atol=1e-10)


def test_lanes_side_by_side_are_the_papers() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["momentum"])
    played = problem.play(FedDyn(alpha=ALPHA), settings, 3, 3, backend="stacked")
    assert max(errors(played, (x for x, _, _ in feddyn(problem, settings, 3, 3, ALPHA, "samples")))) < 1e-9


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "one-step": {"lr": 0.3, "steps": 1},
    "sgd": {"lr": 0.3, "steps": 3},
    "unequal-steps": {"lr": 0.3, "epochs": 2, "batch_size": 1},
    "momentum": {"lr": 0.2, "steps": 8, "momentum": 0.5},
    "nesterov": {"lr": 0.2, "steps": 8, "momentum": 0.5, "nesterov": True},
}


# Each takes a second: all are in `make test-slow`, and these always.
ALWAYS = {("sgd", "samples"), ("unequal-steps", "samples"), ("momentum", "samples"), ("one-step", "uniform")}
OPTIMA = [
    pytest.param(local, weighting, marks=[] if (local, weighting) in ALWAYS else [pytest.mark.slow])
    for local in OPTIMIZERS
    for weighting in get_args(Weighting)
]


@pytest.mark.parametrize(("local", "weighting"), OPTIMA)
def test_all_clients_together_reach_the_exact_optimum(local: str, weighting: Weighting) -> None:
    """Though one step, or steps of different numbers, are far from minimizing the local objective."""
    q = Quadratics.random(3, sizes=(1, 4, 2))
    settings = LocalSettings(**{"batch_size": "full", **OPTIMIZERS[local]})
    rounds = q.play(FedDyn(alpha=1.0, weighting=weighting), settings, cohort=3)
    last = [state for state, _, _ in islice(rounds, 65)][-5:]
    assert all(close(state.x, q.optimum(weighting), 1e-10) for state in last)


@pytest.mark.parametrize(("cohort", "rounds"), [(2, 140), pytest.param(1, 320, marks=pytest.mark.slow)])
def test_a_partial_cohort_reaches_the_exact_optimum(cohort: int, rounds: int) -> None:
    q, local = Quadratics.random(3), LocalSettings(lr=0.3, steps=3, batch_size="full")
    *_, (state, _, _) = islice(q.play(FedDyn(alpha=2.0, weighting="uniform"), local, cohort), rounds)
    assert close(state.x, q.optimum("uniform"), 1e-10)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_the_servers_h_is_the_weighted_mean_of_all_clients(weighting: Weighting) -> None:
    problem, settings = PROBLEMS["quadratic-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    algorithm, p = FedDyn(alpha=ALPHA, weighting=weighting), problem.weights(weighting)
    played = problem.play(algorithm, settings, 2, 6)
    state, _, federation = played[-1]
    mean = federation.mean_state(state.accepted, p.tolist())
    assert torch.allclose(state.server["h"], mean["h_i"].to(state.x), rtol=0, atol=1e-13)
    numbers = algorithm.check(state.server, mean)
    assert numbers["gap"] < 1e-12
    assert numbers["norm"] == pytest.approx(float(state.server["h"].norm()), rel=1e-12)
    assert algorithm.check({"h": state.server["h"] + 1.0}, mean)["gap"] == pytest.approx(2.0, rel=1e-9)


def test_in_the_first_round_clients_move_as_in_fedprox_and_the_server_goes_on() -> None:
    """h_i = 0 at first; with all clients h = - alpha D, so that x moves by 2 D, and by server_lr times that."""
    q, local = Quadratics.random(4, sizes=(1, 2, 3, 4)), LocalSettings(lr=0.1, steps=7, batch_size="full")
    x = torch.from_numpy(q.start)
    proximal, _, _ = next(q.play(FedProx(mu=ALPHA), local, cohort=4))
    for rate in (1.0, 0.5):
        state, _, _ = next(q.play(FedDyn(alpha=ALPHA, server_lr=rate), local, cohort=4))
        assert close(state.x, (x + rate * 2 * (proximal.x - x)).numpy(), 1e-14)


def test_damping_the_server_keeps_the_optimum() -> None:
    q, local = Quadratics.random(3), LocalSettings(lr=0.3, steps=2, batch_size="full")
    states = [state for state, _, _ in islice(q.play(FedDyn(alpha=1.0, server_lr=0.5), local, cohort=3), 90)]
    assert close(states[-1].x, q.optimum("samples"), 1e-10)
    assert all(not one.x.equal(other.x) for one, other in pairwise(states[:5]))


def test_a_term_that_the_steps_overshoot_is_refused() -> None:
    with pytest.raises(InvalidExperiment, match=r"overshoot the proximal term.*local.lr times algorithm.alpha is 2.5"):
        fedopt.Experiment(algorithm=FedDyn(alpha=50.0), local={"lr": 0.05})
