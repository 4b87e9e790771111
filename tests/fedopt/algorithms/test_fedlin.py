"""FedLin against its paper, and to the exact optimum with unequal steps."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

import fedopt
from fedopt.algorithms.base import Weighting
from fedopt.algorithms.fedlin import FedLin
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.fedlin import fedlin
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors
from tests.quadratics import Quadratics, close


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("cohort", [5, 3])
@pytest.mark.parametrize(
    ("local", "rates"),
    [
        ("equal-steps", "common"),
        ("unequal-steps", "common"),
        ("unequal-steps", "by-steps"),
        ("momentum", "common"),
        ("adam", "common"),
    ],
)
def test_it_is_the_paper_s(problem: str, local: str, rates: Any, cohort: int) -> None:
    settings = LocalSettings(**LOCALS[local])
    played = PROBLEMS[problem].play(FedLin(rates=rates), settings, cohort, 3)
    assert max(errors(played, fedlin(PROBLEMS[problem], settings, cohort, 3, rates == "by-steps"))) < 1e-9


@pytest.mark.parametrize("rates", ["common", "by-steps"])
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_it_converges_to_the_optimum_though_clients_take_one_to_six_steps(weighting: Weighting, rates: Any) -> None:
    q = Quadratics.random(5, sizes=(1, 2, 3, 4, 6))
    local = LocalSettings(lr=0.3 if rates == "common" else 1.0, epochs=1, batch_size=1)
    played = list(islice(q.play(FedLin(rates=rates, weighting=weighting), local, 5), 30))
    assert close(played[-1][0].x, q.optimum(weighting), 1e-10)


def test_one_step_is_gradient_descent_on_all_data() -> None:
    q = Quadratics.random(4, sizes=(1, 2, 3, 4))
    x, p = q.start, q.weights("samples")
    for state, work, _ in q.play(FedLin(), LocalSettings(lr=0.2, steps=1, batch_size=1), 4):
        x = x - 0.2 * p @ (q.matrices @ x - q.vectors)
        assert close(state.x, x, 1e-13)
        if work.round == 4:
            break


@pytest.mark.parametrize("local", [{"optimizer": "adam"}, {"momentum": 0.9}, {"clip": 1.0}])
def test_rates_by_steps_are_for_plain_sgd(local: dict[str, Any]) -> None:
    fedopt.Experiment(algorithm={"name": "fedlin"}, local=local)
    with pytest.raises(InvalidExperiment) as error:
        fedopt.Experiment(algorithm={"name": "fedlin", "rates": "by-steps"}, local=local)
    assert str(error.value) == (
        'algorithm.name: fedlin scales gradients for rates = "by-steps", which is a rate for plain sgd alone; '
        "leave out momentum, weight_decay and clip"
    )


def test_stragglers_do_not_move_the_optimum() -> None:
    q = Quadratics.random(5, sizes=(1, 2, 3, 4, 6))
    local = LocalSettings(lr=0.3, steps="uniform(1, 6)", stragglers=0.3, batch_size=1)
    played = list(islice(q.play(FedLin(), local, 5), 40))
    assert len({work.local_steps for _, work, _ in played}) > 5
    assert close(played[-1][0].x, q.optimum("samples"), 1e-10)
