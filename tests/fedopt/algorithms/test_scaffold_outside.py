"""SCAFFOLD with its correction behind the local optimizer, against plain loops by torch.optim."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fedopt.algorithms.scaffold import Scaffold
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, Problem, errors, torch_optimizer


def plainly(problem: Problem, local: LocalSettings, cohort: int, rounds: int) -> Iterator[Tensor]:
    """x after each round: torch's step on g, then - lr (c - c_i); c_i is the mean of the g."""
    x, p = problem.start, problem.weights()
    c, own = torch.zeros_like(x), [torch.zeros_like(x) for _ in problem.sizes]
    for round_, clients in problem.rounds(cohort, rounds):
        moved, change = torch.zeros_like(x), torch.zeros_like(x)
        for i in clients:
            point, raw = nn.Parameter(x.clone()), []
            optimizer = torch_optimizer(local, point)
            for batch in problem.batches(local, round_, i):
                point.grad = problem.gradient(i, point.detach(), batch)
                raw.append(point.grad.clone())
                optimizer.step()
                point.data -= local.lr * (c - own[i])
            new = torch.stack(raw).mean(0)
            moved, change = moved + p[i] * (point.detach() - x), change + p[i] * (new - own[i])
            own[i] = new
        x, c = x + moved / p[clients].sum(), c + change
        yield x


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("cohort", "local"), [(5, "momentum"), (3, "adamw"), (3, "nesterov")])
def test_rounds_are_those_of_plain_loops(name: str, cohort: int, local: str) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    played = problem.play(Scaffold(correction="outside"), settings, cohort, 4)
    assert max(errors(played, plainly(problem, settings, cohort, 4))) < 1e-9
    inside = problem.play(Scaffold(), settings, cohort, 4)
    assert max(errors(inside, [state.x for state, _, _ in played])) > 1e-4


@pytest.mark.parametrize("name", PROBLEMS)
def test_for_sgd_without_momentum_both_places_are_the_same(name: str) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS["unequal-steps"])
    inside, outside = (problem.play(Scaffold(correction=where), settings, 3, 4) for where in ("inside", "outside"))
    assert max(errors(outside, [state.x for state, _, _ in inside])) < 1e-12


def test_only_the_correction_outside_needs_more_than_corrected_gradients() -> None:
    assert Scaffold().fits_own_loops
    assert not Scaffold(correction="outside").fits_own_loops
