"""FedACG against its paper, and what it reduces to."""

from __future__ import annotations

import pytest
import torch

from clients.lanes.backends import Backend
from fedopt.algorithms.fedacg import FedACG
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings
from fedopt.server_optimizers.sgd import ServerSgd
from tests.fedopt.algorithms.papers.fedacg import fedacg
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors

ROUNDS = 4


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("cohort", "local"), [(5, "unequal-steps"), (2, "momentum"), (2, "adam")])
def test_rounds_are_the_papers(name: str, cohort: int, local: str) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    expected = fedacg(problem, settings, cohort, ROUNDS, 0.85, 0.5)
    assert max(errors(problem.play(FedACG(beta=0.5), settings, cohort, ROUNDS), expected)) < 1e-9


@pytest.mark.parametrize("backend", ["stacked", "vmap"])
def test_rounds_are_the_papers_side_by_side(backend: Backend) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    expected = fedacg(problem, settings, 5, ROUNDS, 0.5, 0.2)
    played = problem.play(FedACG(server_momentum=0.5, beta=0.2), settings, 5, ROUNDS, backend=backend)
    assert max(errors(played, expected)) < 1e-10


@pytest.mark.parametrize("local", ["unequal-steps", "momentum", "adam"])
def test_without_lookahead_and_proximal_term_it_is_fedavg_to_the_bit(local: str) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS[local])
    found, plain = (
        problem.play(algorithm, settings, 3, ROUNDS)
        for algorithm in (FedACG(server_momentum=0.0, beta=0.0, server_lr=0.7), FedAvg(server_lr=0.7))
    )
    assert all(a.x.equal(b.x) for (a, *_), (b, *_) in zip(found, plain, strict=True))


def test_its_first_round_is_that_of_fedavgm_and_its_second_is_not() -> None:
    """m = 0 in round 1: nobody looks ahead. From round 2 on FedAvgM's clients start at x, FedACG's ahead of it."""
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    ahead = problem.play(FedACG(server_momentum=0.8, beta=0.0), settings, 5, 2)
    behind = problem.play(FedAvg(server=ServerSgd(server_momentum=0.8)), settings, 5, 2)
    assert torch.allclose(ahead[0][0].x, behind[0][0].x, rtol=1e-14)
    assert not torch.allclose(ahead[1][0].x, behind[1][0].x, rtol=1e-3)


def test_another_server_rate_looks_ahead_as_far_as_the_server_would_step() -> None:
    """On a quadratic with one full step: theta and the broadcast in closed form."""
    problem, settings = PROBLEMS["quadratic-unequal"], LocalSettings(lr=0.1, steps=1, batch_size="full")
    x, m, p = problem.start, torch.zeros_like(problem.start), problem.weights()
    for state, _, _ in problem.play(FedACG(server_momentum=0.5, server_lr=0.6), settings, 5, ROUNDS):
        z = x + 0.6 * 0.5 * m
        m = 0.5 * m - 0.1 * p @ torch.stack([problem.gradient(i, z) for i in range(5)])
        x = x + 0.6 * m
        assert torch.allclose(state.x, x, rtol=1e-12, atol=1e-14)
