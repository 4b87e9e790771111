"""FedSAM and FedLESAM against their papers, and their reductions to FedAvg."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fedopt
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.fedlesam import FedLESAM
from fedopt.algorithms.fedsam import FedSAM
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.fedsam import fedlesam, fedsam
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors

RHO = 0.3
CASES = [(name, "unequal-steps") for name in PROBLEMS]
CASES += [("network-unequal", local) for local in LOCALS if local != "unequal-steps"]


def with_sam(keys: dict[str, Any] | Any, rho: float = RHO) -> LocalSettings:
    """The same steps, taken by SAM around the optimizer of these keys."""
    return LocalSettings(**{**keys, "optimizer": "sam", "base": keys.get("optimizer", "sgd"), "rho": rho})


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_fedsam_is_the_papers(name: str, local: str, cohort: int) -> None:
    problem, plain = PROBLEMS[name], LocalSettings(**LOCALS[local])
    played = problem.play(FedSAM(), with_sam(LOCALS[local]), cohort, 4)
    assert max(errors(played, fedsam(problem, plain, cohort, 4, RHO))) < 1e-9


@pytest.mark.parametrize(("name", "local"), CASES)
@pytest.mark.parametrize("cohort", [5, 2])
def test_fedlesam_is_the_papers(name: str, local: str, cohort: int) -> None:
    """With two clients of five a round, some come for the first time later, and others after rounds without them."""
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    played = problem.play(FedLESAM(rho=RHO), settings, cohort, 5)
    assert max(errors(played, fedlesam(problem, settings, cohort, 5, RHO))) < 1e-9


def test_lanes_side_by_side_are_the_papers() -> None:
    problem, keys = PROBLEMS["network-unequal"], LOCALS["momentum"]
    plain = LocalSettings(**keys)
    played = problem.play(FedSAM(), with_sam(keys), 3, 3, backend="stacked")
    assert max(errors(played, fedsam(problem, plain, 3, 3, RHO))) < 1e-9
    played = problem.play(FedLESAM(rho=RHO), plain, 3, 3, backend="stacked")
    assert max(errors(played, fedlesam(problem, plain, 3, 3, RHO))) < 1e-9


@pytest.mark.parametrize("local", LOCALS)
def test_without_a_radius_they_are_fedavg_to_the_bit(local: str) -> None:
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS[local])
    plain = [state.x for state, _, _ in problem.play(FedAvg(), settings, 3, 3)]
    runs: list[tuple[Algorithm, LocalSettings]] = [
        (FedSAM(), with_sam(LOCALS[local], 0.0)),
        (FedLESAM(rho=0.0), settings),
    ]
    for algorithm, of_it in runs:
        assert all(
            state.x.equal(x) for (state, _, _), x in zip(problem.play(algorithm, of_it, 3, 3), plain, strict=True)
        )


def test_a_client_that_never_took_part_is_not_perturbed() -> None:
    """Its first round is FedAvg's, whatever the radius, and in whichever round that is."""
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    seen: set[int] = set()
    x = problem.start
    fresh = 0
    for state, work, federation in problem.play(FedLESAM(rho=RHO), settings, 1, 4):
        (client,) = work.cohort
        if client not in seen:
            y = x
            for batch in problem.batches(settings, state.round, client):
                y = y - settings.lr * problem.gradient(client, y, batch)
            assert torch.allclose(state.x, y, rtol=0, atol=1e-12)
            fresh += state.round > 1
        seen.add(client)
        x = state.x
        untouched = federation.states.at(next(iter(set(range(5)) - seen)), None)["x_before"]
        assert bool(untouched.isinf().all())
    assert fresh > 0


def test_a_model_that_did_not_move_is_not_perturbed() -> None:
    """A federation at its optimum: x_before = x, and 0 / 0 is no direction."""
    problem, settings = PROBLEMS["quadratic-equal"], LocalSettings(lr=1e-300, steps=1, batch_size="full")
    *_, (state, _, _) = problem.play(FedLESAM(rho=RHO), settings, 5, 3)
    assert state.x.equal(problem.start)


def test_fedsam_chooses_sam_and_refuses_what_is_none() -> None:
    assert fedopt.Experiment(algorithm={"name": "fedsam"}).local.optimizer.name == "sam"
    wrapping = fedopt.Experiment(algorithm={"name": "fedsam"}, local={"base": "adam", "rho": 0.1}).local.optimizer
    assert wrapping.model_dump() | {"base": "adam", "rho": 0.1} == wrapping.model_dump()
    message = r'^algorithm.name: fedsam with local.optimizer = "adam" is FedAvg; set local.optimizer = "sam"$'
    with pytest.raises(InvalidExperiment, match=message):
        fedopt.Experiment(algorithm={"name": "fedsam"}, local={"optimizer": "adam"})


@pytest.mark.parametrize("algorithm", ["fedlesam", "fedspeed"])
def test_an_algorithm_that_perturbs_refuses_sam(algorithm: str) -> None:
    with pytest.raises(
        InvalidExperiment, match=rf"^algorithm.name: {algorithm} perturbs by itself, and local.optimizer"
    ):
        fedopt.Experiment(algorithm={"name": algorithm}, local={"optimizer": "sam"})
