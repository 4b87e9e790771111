"""The federations that references from papers run on, with FedAvg as the first of these references."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from clients.lanes.backends import Backend
from fedopt.algorithms.base import Weighting
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.fedavg import fedavg
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, UNEQUAL, errors

CASES = [(name, "unequal-steps", weighting) for name in PROBLEMS for weighting in get_args(Weighting)]
CASES += [("network-unequal", local, "samples") for local in LOCALS if local != "unequal-steps"]


@pytest.mark.parametrize(("name", "local", "weighting"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_fedavg_is_the_papers(name: str, local: str, cohort: int, weighting: Weighting) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    expected = fedavg(problem, settings, cohort, 3, weighting)
    assert max(errors(problem.play(FedAvg(weighting=weighting), settings, cohort, 3), expected)) < 1e-11


@pytest.mark.parametrize("backend", ["stacked", "vmap"])
def test_lanes_side_by_side_are_the_papers(backend: Backend) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["momentum"])
    played = problem.play(FedAvg(), settings, 5, 3, backend=backend)
    assert max(errors(played, fedavg(problem, settings, 5, 3, "samples"))) < 1e-11


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_gradient_is_that_of_the_loss(name: str) -> None:
    problem, batch = PROBLEMS[name], torch.tensor([1, 0])
    y, along = problem.start + 0.1, torch.linspace(-1, 1, len(problem.start)).double()
    ahead, behind = (problem.loss(2, y + sign * 1e-5 * along, batch) for sign in (1, -1))
    assert abs(float((ahead - behind) / 2e-5 - problem.gradient(2, y, batch) @ along)) < 1e-8


def test_clients_differ_in_steps_and_in_their_last_batch() -> None:
    problem, local = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    plans = [problem.batches(local, 1, i) for i in range(5)]
    assert [len(plan) for plan in plans] == [2 * -(-n // 3) for n in UNEQUAL]
    assert {len(plan[-1]) for plan in plans} == {1, 2, 3}
