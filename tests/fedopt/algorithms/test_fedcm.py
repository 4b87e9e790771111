"""FedCM and MoFedSAM against their papers, and their reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fedopt
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.fedcm import FedCM
from fedopt.algorithms.mofedsam import MoFedSAM
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from fedopt.schedules.base import Schedule
from tests.fedopt.algorithms.papers.fedcm import fedcm
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors
from tests.quadratics import Quadratics, close

ALPHA, RHO = 0.3, 0.2
CASES = [(name, local) for name in PROBLEMS for local in ("equal-steps", "unequal-steps")]


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
@pytest.mark.parametrize("rho", [0.0, RHO], ids=["fedcm", "mofedsam"])
def test_it_is_the_papers(name: str, local: str, cohort: int, rho: float) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    algorithm = MoFedSAM(alpha=ALPHA, rho=rho) if rho else FedCM(alpha=ALPHA)
    played = problem.play(algorithm, settings, cohort, 4)
    expected = list(fedcm(problem, settings, cohort, 4, ALPHA, rho))
    assert max(errors(played, [x for x, _ in expected])) < 1e-9
    for (state, _, _), (_, delta) in zip(played, expected, strict=True):
        assert torch.allclose(state.server["delta"], delta, rtol=0, atol=1e-10)


@pytest.mark.parametrize("algorithm", [FedCM(alpha=ALPHA), MoFedSAM(alpha=ALPHA, rho=RHO)], ids=["fedcm", "mofedsam"])
@pytest.mark.parametrize("backend", ["stacked", pytest.param("vmap", marks=pytest.mark.slow)])
def test_lanes_side_by_side_are_the_papers(algorithm: FedCM, backend: Any) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    rho = RHO if isinstance(algorithm, MoFedSAM) else 0.0
    played = problem.play(algorithm, settings, 3, 3, backend=backend)
    assert max(errors(played, (x for x, _ in fedcm(problem, settings, 3, 3, ALPHA, rho)))) < 1e-9


class Halving(Schedule):
    """Every step and every round halve the rate, so that the next round's rates say nothing about the last one's."""

    def rate(self, lr: float, round_: int, step: int) -> float:
        return lr * 0.5 ** (round_ - 1 + step)


@pytest.mark.parametrize("cohort", [5, 2])
def test_the_momentum_is_in_the_rates_of_the_round_it_comes_from(cohort: int) -> None:
    problem = PROBLEMS["network-unequal"]
    settings = LocalSettings(lr=0.4, epochs=2, batch_size=3, schedule=Halving())
    played = problem.play(FedCM(alpha=ALPHA), settings, cohort, 4)
    assert max(errors(played, (x for x, _ in fedcm(problem, settings, cohort, 4, ALPHA)))) < 1e-9


@pytest.mark.parametrize("local", LOCALS)
def test_with_all_of_the_local_gradient_it_is_fedavg_to_the_bit(local: str) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS[local])
    plain, mixed = (problem.play(algorithm, settings, 3, 3) for algorithm in (FedAvg(), FedCM(alpha=1.0)))
    assert all(one.x.equal(other.x) for (one, _, _), (other, _, _) in zip(plain, mixed, strict=True))


def test_without_a_radius_mofedsam_is_fedcm_to_the_bit() -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    plain, sharp = (problem.play(algorithm, settings, 3, 3) for algorithm in (FedCM(), MoFedSAM(rho=0.0)))
    assert all(one.x.equal(other.x) for (one, _, _), (other, _, _) in zip(plain, sharp, strict=True))


def test_clipping_bounds_the_whole_direction() -> None:
    """One step from x: y = x - lr clip(alpha g + (1 - alpha) Delta), where Delta is what the clients took before."""
    q, clip = Quadratics.random(2), 0.2
    local = LocalSettings(lr=0.1, steps=1, batch_size="full", clip=clip)
    x, delta = q.start, np.zeros(3)
    rounds = q.play(FedCM(alpha=ALPHA), local, cohort=2)
    for _ in range(3):
        state, _, _ = next(rounds)
        directions = []
        for a, b in zip(q.matrices, q.vectors, strict=True):
            v = ALPHA * (a @ x - b) + (1 - ALPHA) * delta
            directions.append(v * min(1.0, clip / (np.linalg.norm(v) + 1e-6)))
        delta = np.mean(directions, axis=0)
        x = x - 0.1 * delta
        assert close(state.x, x, 1e-13)
        assert close(state.server["delta"], delta, 1e-12)


def test_the_server_rate_does_not_change_the_momentum() -> None:
    problem, settings = PROBLEMS["quadratic-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    ((whole, _, _),), ((half, _, _),) = (
        problem.play(FedCM(alpha=ALPHA, server_lr=rate), settings, 5, 1) for rate in (1.0, 0.5)
    )
    assert half.server["delta"].equal(whole.server["delta"])
    assert torch.allclose(half.x, (problem.start + whole.x) / 2, rtol=0, atol=1e-14)


@pytest.mark.parametrize("algorithm", ["fedcm", "mofedsam"])
@pytest.mark.parametrize("local", [{"momentum": 0.9}, {"optimizer": "adam"}, {"optimizer": "sam"}])
def test_other_optimizers_are_refused(algorithm: str, local: dict[str, Any]) -> None:
    message = rf'^algorithm.name: {algorithm} turns the clients. displacement .* set local.optimizer = "sgd" and'
    with pytest.raises(InvalidExperiment, match=message):
        fedopt.Experiment(algorithm={"name": algorithm}, local=local)
    assert fedopt.Experiment(algorithm={"name": algorithm}, local={"weight_decay": 0.1, "clip": 1.0})
