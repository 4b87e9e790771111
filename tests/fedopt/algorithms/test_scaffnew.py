"""Scaffnew against its paper: coin by coin, and to the exact optimum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedopt
from fedopt.algorithms.base import ServerRound, Weighting
from fedopt.algorithms.scaffnew import Scaffnew
from fedopt.commands.reporting import describe_experiment
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.scaffnew import scaffnew
from tests.fedopt.algorithms.papers.setting import PROBLEMS, Played, errors
from tests.quadratics import Quadratics, close

EVERYONE = {"participation": 1.0}


def coins(played: list[Played], clients: int) -> Iterator[bool]:
    """Those that the rounds must have seen, from the steps that their clients took."""
    for _, work, _ in played:
        steps, rest = divmod(work.local_steps, clients)
        assert rest == 0
        yield from [False] * (steps - 1)
        yield True


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize("batch_size", [3, "full"])
def test_it_is_the_paper_s(problem: str, weighting: Weighting, batch_size: int | str) -> None:
    local, p = LocalSettings(lr=0.05, steps=1, batch_size=batch_size), 0.3
    played = PROBLEMS[problem].play(Scaffnew(p=p, weighting=weighting), local, 5, 5)
    assert len({work.local_steps for _, work, _ in played}) > 1
    expected = scaffnew(PROBLEMS[problem], local, p, coins(played, 5), weighting)
    assert max(errors(played, [next(expected) for _ in played])) < 1e-9


def test_the_number_of_steps_is_geometric_and_new_in_every_round() -> None:
    rounds, p = 2000, 0.3
    drawn = [Scaffnew(p=p).common_steps(ServerRound(number, 0)) for number in range(1, rounds + 1)]
    found = Counter(drawn)
    assert min(found) == 1
    for k in range(1, 8):
        share = p * (1 - p) ** (k - 1)
        assert abs(found[k] / rounds - share) < 4 * np.sqrt(share * (1 - share) / rounds)
    assert drawn != [Scaffnew(p=p).common_steps(ServerRound(number, 1)) for number in range(1, rounds + 1)]


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_it_converges_linearly_to_the_optimum(weighting: Weighting) -> None:
    q = Quadratics.random(4, sizes=(1, 2, 3, 4))
    local, distances = LocalSettings(lr=0.3, epochs=1, batch_size="full"), []
    for state, _, _ in q.play(Scaffnew(p=0.4, weighting=weighting), local, 4):
        distances.append(float(np.linalg.norm(state.x.numpy() - q.optimum(weighting))))
        if len(distances) == 60:
            break
    assert distances[-1] < 1e-10
    assert np.all(np.diff(np.log(distances[:30:10])) < -2)


def test_with_p_1_it_is_gradient_descent() -> None:
    q, x = Quadratics.random(4, sizes=(1, 2, 3, 4)), None
    for state, work, _ in q.play(Scaffnew(p=1.0), LocalSettings(lr=0.2, batch_size="full"), 4):
        before = q.start if x is None else x
        x = before - 0.2 * q.weights("samples") @ (np.einsum("nij,j->ni", q.matrices, before) - q.vectors)
        assert close(state.x, x, 1e-13)
        if work.round == 5:
            break


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"run": {}}, "scaffnew needs all 20 clients in every round; set run.participation = 1.0"),
        *(
            (
                {"local": local},
                "scaffnew takes plain steps of sgd at a constant rate, without momentum, weight_decay or clip",
            )
            for local in ({"optimizer": "adam"}, {"momentum": 0.9}, {"clip": 1.0})
        ),
        (
            {"local": {"stragglers": 0.5}},
            "scaffnew's clients all take the same number of steps; leave out local.stragglers",
        ),
        (
            {"algorithm": {"name": "scaffnew", "server_lr": 0.5}},
            "scaffnew's server takes the mean of the clients' models; leave out algorithm.server_lr",
        ),
    ],
)
def test_what_it_cannot_run_with_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidExperiment) as error:
        fedopt.Experiment(**{"algorithm": {"name": "scaffnew"}, "run": EVERYONE, **changes})
    assert str(error.value) == f"algorithm.name: {complaint}"


def test_work_that_it_does_not_read_is_pointed_out() -> None:
    experiment = fedopt.Experiment(algorithm={"name": "scaffnew"}, run=EVERYONE, local={"steps": 3})
    assert experiment.notes() == ["local.steps is not used by scaffnew: it draws the number of steps"]
    assert "3 steps" not in describe_experiment(experiment)
    assert fedopt.Experiment(algorithm={"name": "scaffnew"}, run=EVERYONE).notes() == []


def test_workers_and_resumed_runs_draw_the_same_steps(tmp_path: Path) -> None:
    def played(name: str, rounds: int, workers: int) -> fedopt.History:
        experiment = fedopt.Experiment(
            data={"clients": 4},
            model={"name": "logistic"},
            algorithm={"name": "scaffnew", "p": 0.3},
            run={"rounds": rounds, "participation": 1.0, "workers": workers, "seed": 4},
        )
        return fedopt.run(experiment, tmp_path / name)

    whole, over = played("whole", 4, 1), played("workers", 4, 2)
    played("part", 2, 1)
    resumed = fedopt.resume(tmp_path / "part", ["run.rounds=4"])
    assert len({history.summary.weights_sha256 for history in (whole, over, resumed)}) == 1
    assert len({record.local_steps for record in whole.records}) > 1
