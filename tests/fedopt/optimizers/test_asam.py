"""ASAM: rounds of a plain transcription of the paper, its defining inequality, and the case in which it is FedAvg."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.optimizers.asam import Asam, AsamLanes
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sgd import Sgd
from tests.fedopt.algorithms.papers.setting import PROBLEMS, Problem, errors, walk

RHO, ETA = 0.4, 0.05
BASES = {
    "sgd": {"base": "sgd", "lr": 0.05},
    "momentum": {"base": "sgd", "momentum": 0.8, "lr": 0.05},
    "adam": {"base": "adam", "lr": 0.02},
}


def worst_point(w: Tensor, g: Tensor, rho: float, eta: float) -> Tensor:
    """w + eps of the paper's Algorithm 1, one client."""
    t = torch.diag(w.abs() + eta)
    moved: Tensor = w + rho * t @ t @ g / torch.linalg.vector_norm(t @ g)
    return moved


def plainly(problem: Problem, local: LocalSettings, base: LocalSettings, cohort: int, rounds: int) -> Iterator[Tensor]:
    """x after each round of FedAvg with ASAM."""
    x, p = problem.start, problem.weights()
    for round_, clients in problem.rounds(cohort, rounds):
        moved = torch.zeros_like(x)
        for i in clients:

            def seen(y: Tensor, batch: Tensor, i: int = i) -> Tensor:
                return problem.gradient(i, worst_point(y, problem.gradient(i, y, batch), RHO, ETA), batch)

            moved += p[i] * (walk(base, x, problem.batches(local, round_, i), seen) - x)
        x = x + moved / p[clients].sum()
        yield x


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_rounds_are_those_of_the_paper(name: str, base: str) -> None:
    problem = PROBLEMS[name]
    work = {"epochs": 2, "batch_size": 3}
    local = LocalSettings(optimizer="asam", rho=RHO, eta=ETA, **BASES[base], **work)
    keys = dict(BASES[base])
    inner = LocalSettings(optimizer=keys.pop("base"), **keys, **work)
    found = problem.play(FedAvg(), local, cohort=3, rounds=3)
    assert max(errors(found, plainly(problem, local, inner, 3, 3))) < 1e-9


@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()])
def test_the_stacked_backend_has_no_shortcut_for_it(algorithm: FedAvg | Scaffold) -> None:
    """It has one for SAM, whose perturbation is another."""
    problem = PROBLEMS["network-unequal"]
    local = LocalSettings(optimizer="asam", rho=RHO, eta=ETA, lr=0.05, steps=4, batch_size=3)
    each, stacked = (problem.play(algorithm, local, 3, 2, backend=backend) for backend in ("each", "stacked"))
    assert max(errors(stacked, [state.x for state, _, _ in each])) < 1e-12
    sam = problem.play(algorithm, LocalSettings(optimizer="sam", rho=RHO, lr=0.05, steps=4, batch_size=3), 3, 2)
    assert min(errors(stacked, [state.x for state, _, _ in sam])) > 1e-4


def test_without_a_radius_it_is_the_base_to_the_bit() -> None:
    problem = PROBLEMS["network-unequal"]
    keys = {"lr": 0.05, "steps": 4, "batch_size": 3}
    ours = problem.play(FedAvg(), LocalSettings(optimizer="asam", rho=0.0, **keys), 3, 3)
    plain = problem.play(FedAvg(), LocalSettings(**keys), 3, 3)
    assert ours[-1][0].x.equal(plain[-1][0].x)


def test_the_step_is_the_worst_of_its_ellipse_and_follows_the_weights_scale() -> None:
    chance = torch.Generator().manual_seed(0)
    theta, gradient = torch.randn(2, 3, 40, generator=chance, dtype=torch.float64)
    steps = climb(theta, gradient)
    t = theta.abs() + ETA
    assert torch.allclose((steps / t).norm(dim=1), torch.full((3,), RHO, dtype=torch.float64), rtol=1e-12)
    assert torch.allclose((steps * gradient).sum(1), RHO * (t * gradient).norm(dim=1), rtol=1e-12)
    # f(A w) has the gradient A g(A w): with eta = 0 its step is A^-1 times as long, so that both reach the same loss.
    scales = torch.rand(40, generator=chance, dtype=torch.float64) + 0.5
    scaled = climb(theta / scales, gradient * scales, eta=0.0)
    assert torch.allclose(scaled * scales, climb(theta, gradient, eta=0.0), rtol=1e-12)


def climb(theta: Tensor, gradient: Tensor, eta: float = ETA) -> Tensor:
    moved = theta.clone()
    lanes = AsamLanes(moved, Sgd().build(moved, None), RHO, eta)  # type: ignore[arg-type]
    lanes._climb(gradient)
    return moved - theta


def test_a_lane_is_not_touched_by_its_neighbours_and_no_gradient_moves_nothing() -> None:
    theta = torch.tensor([[1.0, -2.0], [3.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    gradient = torch.tensor([[3.0, 4.0], [0.0, 1e-200], [0.0, 0.0]], dtype=torch.float64)
    together = climb(theta, gradient)
    assert together.equal(torch.cat([climb(theta[i : i + 1], gradient[i : i + 1]) for i in range(3)]))
    assert together.isfinite().all()
    assert not together[2].any()


def test_it_has_the_moments_of_its_base() -> None:
    optimizer = Asam(base="adam")
    assert optimizer.moment_names == ("exp_avg", "exp_avg_sq", "step")
    assert optimizer.second_moment_names == ("exp_avg_sq", "step")
    assert optimizer.title == "asam(adam)"
