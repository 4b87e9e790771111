"""FedExP against its paper, and its step size in the records."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedopt
from fedopt.algorithms.base import Weighting
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.fedexp import FedExP
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.fedexp import fedexp
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS

ROUNDS = 4


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize(("cohort", "local"), [(5, "unequal-steps"), (3, "momentum")])
def test_rounds_and_step_sizes_are_the_papers(name: str, weighting: Weighting, cohort: int, local: str) -> None:
    problem, settings = PROBLEMS[name], LocalSettings(**LOCALS[local])
    expected = list(fedexp(problem, settings, cohort, ROUNDS, 1e-3, weighting))
    played = problem.play(FedExP(weighting=weighting), settings, cohort, ROUNDS)
    for (state, work, _), (w, step_size) in zip(played, expected, strict=True):
        assert float((state.x - w).abs().max()) < 1e-10 * float(w.abs().max())
        assert work.numbers["step_size"] == pytest.approx(step_size, rel=1e-10)


def test_some_steps_are_extrapolated() -> None:
    """Otherwise the comparison above would be one of FedAvg."""
    settings = LocalSettings(**LOCALS["unequal-steps"])
    assert max(step for _, step in fedexp(PROBLEMS["network-unequal"], settings, 5, ROUNDS, 1e-3, "samples")) > 1.1


@pytest.mark.parametrize(("cohort", "eps"), [(1, 0.0), (5, 1e9)])
def test_one_client_a_round_or_a_large_eps_is_fedavg_to_the_bit(cohort: int, eps: float) -> None:
    """|D_i| = |D| with one client, so that s = max(1, 1/2)."""
    problem, settings = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    found, plain = (problem.play(algorithm, settings, cohort, ROUNDS) for algorithm in (FedExP(eps=eps), FedAvg()))
    assert all(a.x.equal(b.x) for (a, *_), (b, *_) in zip(found, plain, strict=True))


def test_the_step_size_is_in_every_rounds_record(tmp_path: Path) -> None:
    experiment = fedopt.Experiment(
        data={"clients": 4}, algorithm={"name": "fedexp"}, local={"epochs": 1}, run={"rounds": 3, "participation": 1.0}
    )
    history = fedopt.run(experiment, tmp_path / "run")
    sizes = [record.algorithm["step_size"] for record in history.records if record.algorithm is not None]
    assert len(sizes) == 3
    assert all(size is not None and size >= 1 for size in sizes)
