"""FedNova against its paper, and against what is exactly true of it on quadratics."""

from __future__ import annotations

import dataclasses
import itertools
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

import fedopt
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.fednova import FedNova
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sam import Sam
from fedopt.optimizers.sgd import Sgd
from tests.fedopt.algorithms.papers.fednova import fednova
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors
from tests.quadratics import Array, Quadratics, close


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("cohort", [5, 3])
@pytest.mark.parametrize(
    ("local", "mu"), [("equal-steps", 0.0), ("unequal-steps", 0.0), ("unequal-steps", 0.7), ("momentum", 0.0)]
)
def test_it_is_the_paper_s(problem: str, local: str, mu: float, cohort: int) -> None:
    settings = LocalSettings(**LOCALS[local])
    played = PROBLEMS[problem].play(FedNova(mu=mu), settings, cohort, 3)
    assert max(errors(played, fednova(PROBLEMS[problem], settings, cohort, 3, mu))) < 1e-9


RATE, STEPS, R = 0.07, 6, 0.8


@pytest.mark.parametrize(
    ("optimizer", "mu", "expected"),
    [
        (Sgd(), 0.0, RATE * STEPS),
        (Sgd(momentum=R), 0.0, RATE * (STEPS - R * (1 - R**STEPS) / (1 - R)) / (1 - R)),
        (Sgd(momentum=R, nesterov=True), 0.0, RATE * (STEPS - R**2 * (1 - R**STEPS) / (1 - R)) / (1 - R)),
        (Sgd(), 0.5, (1 - (1 - RATE * 0.5) ** STEPS) / 0.5),
        (Sam(base=Sgd()), 0.0, RATE * STEPS),
    ],
    ids=["sgd", "momentum", "nesterov", "proximal", "sam"],
)
def test_the_weight_of_the_gradients_has_the_paper_s_closed_forms(
    optimizer: Sgd | Sam, mu: float, expected: float
) -> None:
    assert optimizer.accumulated([RATE] * STEPS, mu) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_rates_that_change_count_under_momentum_and_a_proximal_term_too(nesterov: bool) -> None:
    """torch's own steps against a gradient of 1 + mu y."""
    rates, mu = [0.3, 0.1, 0.2, 0.05], 0.6
    y = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.SGD([y], lr=1.0, momentum=0.9, nesterov=nesterov)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        y.grad = 1 + mu * y.detach()
        optimizer.step()
    found = Sgd(momentum=0.9, nesterov=nesterov).accumulated(rates, mu)
    assert found == pytest.approx(-y.item(), rel=1e-13)


@pytest.mark.parametrize(
    ("local", "mu"),
    [({}, 0.0), ({"momentum": 0.9}, 0.0), ({"momentum": 0.9, "nesterov": True}, 0.0), ({"momentum": 0.9}, 0.5)],
    ids=["sgd", "momentum", "nesterov", "proximal-momentum"],
)
def test_against_constant_gradients_steps_weigh_as_the_objective_does(local: dict[str, Any], mu: float) -> None:
    """f_i = -b_i'x: whatever the numbers of steps are, x moves along sum p_i b_i; under FedAvg it does not."""
    sizes = (1, 2, 5, 8)
    b = np.random.default_rng(0).standard_normal((4, 3))
    q = Quadratics(np.zeros((4, 3, 3)), b, sizes, np.zeros(3))
    settings = LocalSettings(lr=0.1, epochs=2, batch_size=1, **local)
    along = q.weights("uniform") @ b
    state, _, _ = next(q.play(FedNova(mu=mu, weighting="uniform"), settings, 4))
    x = state.x.numpy()
    assert abs(x / np.linalg.norm(x) - along / np.linalg.norm(along)).max() < 1e-12
    state, _, _ = next(q.play(FedAvg(weighting="uniform"), settings, 4))
    x = state.x.numpy()
    assert abs(x / np.linalg.norm(x) - along / np.linalg.norm(along)).max() > 0.1


SIZES = (1, 2, 3, 4, 6)


def fixed_point(q: Quadratics, lr: float, normalized: bool) -> Array:
    """Where sum p_i (I - M_i) (x - x_i*) / a_i = 0, with p_i = 1 / N and K_i = n_i; a_i is K_i, or 1 in FedAvg."""
    pulls = [
        (np.eye(3) - np.linalg.matrix_power(np.eye(3) - lr * a, n)) / (n if normalized else 1)
        for a, n in zip(q.matrices, SIZES, strict=True)
    ]
    solved: Array = np.linalg.solve(
        np.sum(pulls, axis=0), sum(pull @ own for pull, own in zip(pulls, q.minimisers, strict=True))
    )
    return solved


def test_its_distance_from_the_optimum_shrinks_with_the_rate_and_fedavg_s_does_not() -> None:
    """With lr toward 0 FedAvg goes to the optimum of sum p_i K_i f_i, which is that of weights n_i here."""
    q = Quadratics.random(5, sizes=SIZES)
    algorithms = {True: FedNova(weighting="uniform"), False: FedAvg(weighting="uniform")}
    ends: dict[tuple[bool, float], Array] = {}
    for normalized, lr in itertools.product((True, False), (0.1, 0.001)):
        x = ends[normalized, lr] = fixed_point(q, lr, normalized)
        local = LocalSettings(lr=lr, epochs=1, batch_size=1)
        there = dataclasses.replace(q, start=x)
        state, _, _ = next(there.play(algorithms[normalized], local, len(SIZES)))
        assert close(state.x, x, 1e-13)
    optimum = q.optimum("uniform")
    far = {key: np.linalg.norm(x - optimum) for key, x in ends.items()}
    assert 80 < far[True, 0.1] / far[True, 0.001] < 125
    inconsistency = np.linalg.norm(q.optimum("samples") - optimum)
    assert far[False, 0.001] == pytest.approx(inconsistency, rel=0.01)
    assert far[True, 0.001] < 0.01 * inconsistency


def test_it_converges_to_its_fixed_point() -> None:
    q, local = Quadratics.random(5, sizes=SIZES), LocalSettings(lr=0.3, epochs=1, batch_size=1)
    state, _, _ = next(islice(q.play(FedNova(weighting="uniform"), local, 5), 39, None))
    assert close(state.x, fixed_point(q, 0.3, True), 1e-10)


def test_with_equal_steps_it_is_fedavg() -> None:
    problem, local = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["equal-steps"])
    expected = [state.x for state, _, _ in problem.play(FedAvg(), local, 3, 3)]
    assert max(errors(problem.play(FedNova(), local, 3, 3), expected)) < 1e-14


def test_stragglers_do_not_pull_it_away() -> None:
    """Under constant gradients every round moves along the objective of its cohort, even with stragglers."""
    b = np.random.default_rng(1).standard_normal((4, 3))
    q = Quadratics(np.zeros((4, 3, 3)), b, (2,) * 4, np.zeros(3))
    local, x = LocalSettings(lr=0.1, epochs=5, batch_size=1, stragglers=0.5), np.zeros(3)
    steps = set()
    for state, work, _ in islice(q.play(FedNova(), local, 3), 8):
        moved, along = state.x.numpy() - x, b[work.cohort].mean(axis=0)
        assert abs(moved - 0.1 * work.local_steps / 3 * along).max() < 1e-13
        x = state.x.numpy().copy()
        steps.add(work.local_steps)
    assert len(steps) > 2


@pytest.mark.parametrize(
    ("local", "complaint"),
    [
        ({"optimizer": "adam"}, "fednova needs the weight of each gradient in a client's update, and adam has none"),
        (
            {"momentum": 0.9, "state": "keep"},
            'fednova takes momentum that starts at zero in each round, not local.state = "keep"',
        ),
    ],
)
def test_what_it_cannot_normalize_is_refused(local: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidExperiment) as error:
        fedopt.Experiment(algorithm={"name": "fednova"}, local=local)
    assert str(error.value) == f"algorithm.name: {complaint}"
