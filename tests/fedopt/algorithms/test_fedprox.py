"""FedProx against its paper, its closed forms on quadratics, and FedAvg."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

import fedopt
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.fedprox import FedProx
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from fedopt.server_optimizers.sgd import ServerSgd
from tests.fedopt.algorithms.papers.fedprox import fedprox
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors
from tests.quadratics import Array, Quadratics, close

LR, STEPS, MU = 0.1, 10, 0.7
UNEQUAL = (1, 5, 2, 9, 3, 3, 7, 1)
CASES = [(name, "unequal-steps") for name in PROBLEMS]
CASES += [("network-unequal", local) for local in LOCALS if local != "unequal-steps"]


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_it_is_the_papers(name: str, local: str, cohort: int) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    played = problem.play(FedProx(mu=MU), settings, cohort, 4)
    assert max(errors(played, fedprox(problem, settings, cohort, 4, MU))) < 1e-9


@pytest.mark.parametrize("backend", ["stacked", pytest.param("vmap", marks=pytest.mark.slow)])
def test_lanes_side_by_side_are_the_papers(backend: Any) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["momentum"])
    played = problem.play(FedProx(mu=MU), settings, 3, 3, backend=backend)
    assert max(errors(played, fedprox(problem, settings, 3, 3, MU))) < 1e-9


@pytest.mark.parametrize("local", LOCALS)
def test_without_the_term_it_is_fedavg_to_the_bit(local: str) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS[local])
    plain, proximal = (problem.play(algorithm, settings, 3, 3) for algorithm in (FedAvg(), FedProx(mu=0.0)))
    assert all(one.x.equal(other.x) for (one, _, _), (other, _, _) in zip(plain, proximal, strict=True))


def test_a_server_optimizer_steps_along_its_mean_update_too() -> None:
    """Without the term, after rounds in which the server's momentum counts."""
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    momentum = ServerSgd(server_momentum=0.8)
    runs = [problem.play(each, settings, 3, 3) for each in (FedAvg(server=momentum), FedProx(mu=0.0, server=momentum))]
    without = problem.play(FedProx(mu=0.0), settings, 3, 3)
    assert runs[0][-1][0].x.equal(runs[1][-1][0].x)
    assert not runs[1][-1][0].x.equal(without[-1][0].x)


def contractions(q: Quadratics, mu: float) -> tuple[Array, Array]:
    """(A_i + mu I, what STEPS steps leave of the distance to the minimizer of the local objective), [N, d, d] each."""
    curved = q.matrices + mu * np.eye(3)
    return curved, np.linalg.matrix_power(np.eye(3) - LR * curved, STEPS)


def test_one_round_is_the_mean_of_contractions_to_the_proximal_points() -> None:
    q = Quadratics.random(8, sizes=UNEQUAL)
    state, _, _ = next(q.play(FedProx(mu=MU), LocalSettings(lr=LR, steps=STEPS, batch_size="full"), cohort=8))
    curved, left = contractions(q, MU)
    points = np.linalg.solve(curved, (q.vectors + MU * q.start)[..., None])[..., 0]
    moved = points + np.einsum("nij,nj->ni", left, q.start - points)
    assert close(state.x, q.weights("samples") @ moved, 1e-14)


def test_the_fixed_point_lies_between_fedavgs_and_the_optimum() -> None:
    """sum p_i (I - M_i) (A_i + mu I)^-1 (A_i x - b_i) = 0, with M_i = (I - lr (A_i + mu I))^K: a round leaves it."""
    q, local = Quadratics.random(8, sizes=UNEQUAL), LocalSettings(lr=LR, steps=STEPS, batch_size="full")
    p, far = q.weights("samples"), []
    for mu in (0.0, MU, 4.0):
        curved, left = contractions(q, mu)
        pull = np.einsum("n,nij->nij", p, (np.eye(3) - left) @ np.linalg.inv(curved))
        fixed = np.linalg.solve(np.einsum("nij,njk->ik", pull, q.matrices), np.einsum("nij,nj->i", pull, q.vectors))
        state, _, _ = next(Quadratics(q.matrices, q.vectors, q.sizes, fixed).play(FedProx(mu=mu), local, cohort=8))
        assert close(state.x, fixed, 1e-13)
        far.append(np.linalg.norm(fixed - q.optimum("samples")))
    assert far[0] > far[1] > far[2] > 1e-3


@pytest.mark.parametrize("mu", [0.0, 3.0])
def test_with_one_step_the_fixed_point_is_the_optimum(mu: float) -> None:
    """The term has no gradient at x."""
    q, local = Quadratics.random(3, sizes=(1, 4, 2)), LocalSettings(lr=0.4, steps=1, batch_size="full")
    *_, (state, _, _) = islice(q.play(FedProx(mu=mu), local, cohort=3), 80)
    assert close(state.x, q.optimum("samples"), 1e-7)


@pytest.mark.parametrize("mu", [1e3, 1e6])
def test_a_heavy_term_holds_the_client_at_x(mu: float) -> None:
    """The minimizer is x - grad f_i(x) / mu, up to 1 / mu^2."""
    q = Quadratics.random(3)
    state, _, _ = next(q.play(FedProx(mu=mu), LocalSettings(lr=0.9 / mu, steps=40, batch_size="full"), cohort=3))
    gradient = q.weights("samples") @ (np.einsum("nij,j->ni", q.matrices, q.start) - q.vectors)
    moved = (state.x - torch.from_numpy(q.start)) * mu
    assert close(moved, -gradient, 10 / mu + 1e-16 * mu * 10)


@pytest.mark.parametrize(
    ("local", "most"),
    [({}, 2.0), ({"momentum": 0.5}, 3.0), ({"momentum": 0.5, "nesterov": True}, 1.5)],
    ids=["sgd", "momentum", "nesterov"],
)
def test_a_term_that_the_steps_overshoot_is_refused(local: dict[str, Any], most: float) -> None:
    """On f = 0 the distance to x grows from this product of rate and weight on, and shrinks below it."""
    lr = 0.1
    message = rf"^algorithm.name: the local steps overshoot.* local.lr times algorithm.mu is .*must be below {most:g};"
    with pytest.raises(InvalidExperiment, match=message):
        fedopt.Experiment(algorithm=FedProx(mu=1.01 * most / lr), local={"lr": lr, **local})
    for factor in (0.99, 1.01):
        y = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = torch.optim.SGD([y], lr=lr, **local)
        for _ in range(2000):
            y.grad = factor * most / lr * y.detach()
            optimizer.step()
        assert (abs(float(y.detach())) > 1e3) == (factor > 1)
    fedopt.Experiment(algorithm=FedProx(mu=0.99 * most / lr), local={"lr": lr, **local})


@pytest.mark.parametrize("local", [{"optimizer": "adam"}, {"clip": 1.0}])
def test_steps_of_bounded_length_are_not_judged(local: dict[str, Any]) -> None:
    assert fedopt.Experiment(algorithm=FedProx(mu=1e6), local=local).algorithm.name == "fedprox"
