"""Round records against closed forms, on quadratics whose clients take different numbers of steps."""

from __future__ import annotations

import numpy as np
import pytest

from fedopt.algorithms.base import Algorithm, Weighting
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.drift.measuring import MeasurePlan
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sgd import Sgd
from fedopt.round.selection import Terms, select_cohort
from tests.fedopt.round.test_loop import Losing
from tests.quadratics import Array, Quadratics
from tests.rounds import play_round

SIZES = (1, 2, 3, 4, 5, 6)
LOCAL = LocalSettings(lr=0.1, epochs=2, batch_size=2)
STEPS = [2 * -(-size // 2) for size in SIZES]
NUMBER = 8
"""Bytes of a float64; the model has three parameters."""


def way(problem: Quadratics, client: int, local: LocalSettings) -> tuple[Array, Array]:
    """Where gradient descent with heavy-ball momentum and weight decay evaluates the gradient, and where it ends."""
    a, b, y, velocity, visited = problem.matrices[client], problem.vectors[client], problem.start, np.zeros(3), []
    optimizer = local.optimizer
    assert isinstance(optimizer, Sgd)
    for _ in range(STEPS[client]):
        visited.append(y)
        velocity = optimizer.momentum * velocity + (a @ y - b) + optimizer.weight_decay * y
        y = y - local.lr * velocity
    return np.stack(visited), y


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_a_record_is_about_the_work_that_is_in_the_model(weighting: Weighting) -> None:
    problem = Quadratics.random(6, sizes=SIZES)
    algorithm = FedAvg(weighting=weighting, server_lr=0.5)
    state, inner = problem.federation(algorithm, LOCAL)
    losing, plan = Losing(inner, lost={1}, spoilt={4}), MeasurePlan(gradients=True)
    after, work = play_round(state, algorithm, losing, Terms(5, 5, 3), plan=plan)

    there = [client for client in work.cohort if client not in (1, 4)]
    assert len(there) in (3, 4)
    p = problem.weights(weighting)[there]
    losses, ends = [], []
    for client in there:
        visited, end = way(problem, client, LOCAL)
        a, b = problem.matrices[client], problem.vectors[client]
        losses.append(np.mean(0.5 * np.einsum("ki,ij,kj->k", visited, a, visited) - visited @ b))
        ends.append(end)
    assert work.train_loss == pytest.approx(p @ losses / p.sum(), rel=1e-12)
    assert work.samples == sum(SIZES[client] for client in there)
    assert work.local_steps == sum(STEPS[client] for client in there)
    mean_update = p @ (np.stack(ends) - problem.start) / p.sum()
    assert work.update_norm == pytest.approx(0.5 * np.linalg.norm(mean_update), rel=1e-12)
    assert work.bytes_down == len(there) * 3 * NUMBER  # x
    assert work.bytes_up == len(there) * 2 * 3 * NUMBER  # dx, and the full gradient at x
    assert set(after.accepted) == set(there)


@pytest.mark.parametrize(
    "changes",
    [{}, {"momentum": 0.5}, {"weight_decay": 0.3}, {"momentum": 0.5, "weight_decay": 0.3}],
    ids=["sgd", "momentum", "decay", "momentum-decay"],
)
def test_each_client_s_control_is_the_mean_of_the_raw_gradients_of_its_own_steps(changes: dict[str, float]) -> None:
    problem, local = Quadratics.random(6, sizes=SIZES), LOCAL.model_copy(update=changes)
    state, _, federation = next(problem.play(Scaffold(), local, cohort=6))
    for client in range(6):
        visited, _ = way(problem, client, local)
        expected = (visited @ problem.matrices[client] - problem.vectors[client]).mean(axis=0)
        found = federation.states.at(client, state.accepted[client])["c_i"].numpy()
        assert found == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()])
def test_dissimilarity_in_a_partial_cohort_is_weighted_within_it(algorithm: Algorithm) -> None:
    problem = Quadratics.random(6, sizes=SIZES)
    state, federation = problem.federation(algorithm, LOCAL)
    _, work = play_round(state, algorithm, federation, Terms.all_of(3), plan=MeasurePlan(gradients=True))
    w = problem.weights("samples")[work.cohort]
    w = w / w.sum()
    gradients = (np.einsum("nij,j->ni", problem.matrices, problem.start) - problem.vectors)[work.cohort]
    g = w @ gradients
    found = work.measured.gradients
    assert found is not None
    assert found.norm == pytest.approx(np.linalg.norm(g), rel=1e-12)
    assert found.zeta2 == pytest.approx(w @ np.sum((gradients - g) ** 2, axis=1), rel=1e-10)
    assert found.b2 == pytest.approx(w @ np.sum(gradients**2, axis=1) / (g @ g), rel=1e-12)


def test_every_round_draws_its_own_cohort_and_every_client_is_drawn_alike() -> None:
    cohorts = [select_cohort(10, 3, seed=0, round_=round_) for round_ in range(1, 401)]
    assert all(len(set(cohort)) == 3 and cohort == sorted(cohort) for cohort in cohorts)
    drawn = np.bincount(np.concatenate(cohorts), minlength=10)
    # 400 draws with probability 0.3: standard deviation 9.2; five of them
    assert drawn == pytest.approx(np.full(10, 120), abs=46)
