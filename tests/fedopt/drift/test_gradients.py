"""Dissimilarity of gradients and the worth of controls, on quadratics whose gradients are known: A_i x - b_i."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedopt.algorithms.base import Algorithm, shares
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.drift.layers import Layers
from fedopt.drift.measuring import NO_MEASURES, MeasurePlan
from fedopt.optimizers.local import LocalSettings
from fedopt.round.loop import RoundWork
from fedopt.round.selection import Terms
from fedopt.round.state import ServerState
from simulations.virtual import VirtualFederation
from tests.quadratics import Quadratics
from tests.rounds import play_round

LOCAL = LocalSettings(lr=0.05, epochs=None, steps=4, batch_size="full")
PLAN = MeasurePlan(Layers.whole(3), gradients=True)


def play(
    problem: Quadratics, algorithm: Algorithm, local: LocalSettings, cohort: int, plan: MeasurePlan, rounds: int
) -> tuple[ServerState, list[RoundWork], VirtualFederation]:
    """So many rounds; every one is measured alike."""
    state, federation = problem.federation(algorithm, local)
    works: list[RoundWork] = []
    for _ in range(rounds):
        state, work = play_round(state, algorithm, federation, Terms.all_of(cohort), plan=plan)
        federation.commit(state.accepted)
        works.append(work)
    return state, works, federation


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_zeta_b_and_the_alignment_are_those_of_the_quadratics(weighting: str) -> None:
    problem = Quadratics.random(6, sizes=(1, 2, 3, 4, 5, 6))
    algorithm = FedAvg(weighting=weighting)  # type: ignore[arg-type]
    state, federation = problem.federation(algorithm, LOCAL)
    p = problem.weights(weighting)
    state, work = play_round(state, algorithm, federation, Terms.all_of(6), plan=PLAN)

    x = problem.start
    gradients = np.einsum("nij,j->ni", problem.matrices, x) - problem.vectors
    g = p @ gradients
    # y_i - x = (M_i - I)(x - x_i*)
    moves = np.einsum("nij,nj->ni", problem.contractions(0.05, 4) - np.eye(3), x - problem.minimisers)
    d = p @ moves
    found, drift = work.measured.gradients, work.measured.drift
    assert found is not None
    assert drift is not None
    assert found.norm == pytest.approx(np.linalg.norm(g), rel=1e-12)
    assert found.zeta2 == pytest.approx(p @ np.sum((gradients - g) ** 2, axis=1), rel=1e-12)
    assert found.b2 == pytest.approx(p @ np.sum(gradients**2, axis=1) / (g @ g), rel=1e-12)
    assert found.alignment == pytest.approx(-d @ g / np.linalg.norm(d) / np.linalg.norm(g), rel=1e-12)
    assert drift.dispersion == pytest.approx(p @ np.sum((moves - d) ** 2, axis=1), rel=1e-10)


def test_the_scale_of_a_layer_is_its_gradient_by_its_weights() -> None:
    problem, algorithm = Quadratics.random(4), FedAvg()
    state, federation = problem.federation(algorithm, LOCAL)
    plan = MeasurePlan(Layers(("first", "second", "empty"), ((0, 1), (1, 1), (0, 1))), gradients=True)
    _, work = play_round(state, algorithm, federation, Terms.all_of(4), plan=plan)

    x = problem.start
    g = problem.weights("samples") @ (np.einsum("nij,j->ni", problem.matrices, x) - problem.vectors)
    found = work.measured.gradients
    assert found is not None
    first, second = found.layers["first"], found.layers["second"]
    assert first.gradient == pytest.approx(np.linalg.norm(g[[0, 2]]), rel=1e-12)
    assert first.weights == pytest.approx(np.linalg.norm(x[[0, 2]]), rel=1e-12)
    assert first.ratio == pytest.approx(np.linalg.norm(g[[0, 2]]) / np.linalg.norm(x[[0, 2]]), rel=1e-12)
    assert second.ratio == pytest.approx(abs(g[1] / x[1]), rel=1e-12)
    assert found.layers["empty"].ratio is None, "no weights to compare with"


def test_clients_with_one_objective_have_no_dissimilarity() -> None:
    one = Quadratics.random(1)
    same = replace(one, matrices=one.matrices.repeat(4, 0), vectors=one.vectors.repeat(4, 0), sizes=(2,) * 4)
    state, federation = same.federation(FedAvg(), LOCAL)
    _, work = play_round(state, FedAvg(), federation, Terms.all_of(4), plan=PLAN)
    found = work.measured.gradients
    assert found is not None
    assert found.zeta2 == pytest.approx(0, abs=1e-12)
    assert found.b2 == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold(), Scaffold(variant="full-gradient")])
@pytest.mark.parametrize("batch_size", ["full", 1])
def test_measuring_changes_nothing(algorithm: Algorithm, batch_size: str | int) -> None:
    problem = Quadratics.random(6, sizes=(1, 2, 3, 4, 5, 6))
    local = LOCAL.model_copy(update={"batch_size": batch_size})
    plain, _, _ = play(problem, algorithm, local, 3, NO_MEASURES, rounds=5)
    watched, _, _ = play(problem, algorithm, local, 3, PLAN, rounds=5)
    assert torch.equal(plain.x, watched.x)


@pytest.mark.slow
def test_the_control_error_is_one_before_there_are_controls_and_goes_to_zero() -> None:
    _, works, _ = play(Quadratics.random(4), Scaffold(), LOCAL, 4, PLAN, rounds=400)
    errors = [work.numbers["error"] for work in works]
    assert errors[0] == pytest.approx(1, rel=1e-12)
    assert errors[-1] < 1e-12  # at the optimum each control is its client's gradient there


def test_the_control_error_and_distance_are_the_definitions() -> None:
    """Round 2, with every client's control the mean of its gradients along its own path in round 1."""
    problem = Quadratics.random(4, sizes=(1, 2, 3, 4))
    p = problem.weights("samples")
    first, _, _ = play(problem, Scaffold(), LOCAL, 4, PLAN, rounds=1)
    _, (_, work), _ = play(problem, Scaffold(), LOCAL, 4, PLAN, rounds=2)

    controls = []
    for a, b in zip(problem.matrices, problem.vectors, strict=True):
        y, gradients = problem.start, []
        for _ in range(4):
            gradients.append(a @ y - b)
            y = y - 0.05 * gradients[-1]
        controls.append(np.mean(gradients, axis=0))
    c_i = np.stack(controls)
    at_x = np.einsum("nij,j->ni", problem.matrices, first.x.numpy()) - problem.vectors
    error = p @ (np.sum((c_i - at_x) ** 2, axis=1) / np.sum(at_x**2, axis=1))
    assert work.numbers["error"] == pytest.approx(error, rel=1e-10)
    assert work.numbers["distance"] == pytest.approx(p @ np.linalg.norm(c_i - p @ c_i, axis=1), rel=1e-10)


def test_a_gradient_of_zero_gives_a_bounded_control_error() -> None:
    """f(w) = |w|^2 / 2: a step of rate 1 ends at 0, where the gradient is 0, and the control is then the start."""
    problem = Quadratics(np.eye(3)[None], np.zeros((1, 3)), (2,), np.array([1.0, -2.0, 4.0]))
    local = LOCAL.model_copy(update={"lr": 1.0, "steps": 1})
    state, works, _ = play(problem, Scaffold(), local, 1, PLAN, rounds=2)
    assert state.x.tolist() == [0, 0, 0]
    assert works[1].numbers["error"] == 100


def test_the_paper_s_first_option_tells_its_error_every_round() -> None:
    problem = Quadratics.random(4)
    algorithm = Scaffold(variant="full-gradient")
    state, federation = problem.federation(algorithm, LOCAL)
    _, work = play_round(state, algorithm, federation, Terms.all_of(2))
    assert work.numbers["error"] == pytest.approx(1, rel=1e-12)


def test_the_gap_is_rounding_and_shows_an_update_that_was_lost() -> None:
    problem = Quadratics.random(8, sizes=tuple(range(1, 9)))
    algorithm = Scaffold()
    p = shares("samples", list(problem.sizes))
    state, _, federation = play(problem, algorithm, LOCAL, 3, NO_MEASURES, rounds=20)
    gap = algorithm.check(state.server, federation.mean_state(state.accepted, p))["gap"]
    assert gap < 1e-13
    forgotten = dict(itertools.islice(state.accepted.items(), 1, None))  # as if the first client never took part
    assert algorithm.check(state.server, federation.mean_state(forgotten, p))["gap"] > 1e-3
