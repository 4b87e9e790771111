"""Mime and MimeLite against their paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fedopt
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.mime import Mime
from fedopt.algorithms.mimelite import MimeLite
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.mime import BETA1, BETA2, EPS, mime
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors
from tests.quadratics import Quadratics, close

ALGORITHMS: dict[str, type[MimeLite]] = {"mime": Mime, "mimelite": MimeLite}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("cohort", [5, 3])
@pytest.mark.parametrize("base", ["momentum", "adam", "adagrad"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_is_the_paper_s(name: str, base: Any, cohort: int, problem: str) -> None:
    local = LocalSettings(**{**LOCALS["unequal-steps"], "lr": 0.05 if base == "momentum" else 0.01})
    algorithm = ALGORITHMS[name](base=base, beta1=BETA1, beta2=BETA2, eps=EPS)
    played = PROBLEMS[problem].play(algorithm, local, cohort, 3)
    assert max(errors(played, mime(PROBLEMS[problem], local, cohort, 3, base, name == "mimelite"))) < 1e-9


@pytest.mark.parametrize("problem", ["quadratic-unequal", "network-unequal"])
def test_mimelite_without_state_is_fedavg_to_the_bit(problem: str) -> None:
    local = LocalSettings(**LOCALS["unequal-steps"])
    plain, lite = (PROBLEMS[problem].play(algorithm, local, 3, 3) for algorithm in (FedAvg(), MimeLite(beta1=0.0)))
    for (expected, _, _), (found, _, _) in zip(plain, lite, strict=True):
        assert torch.equal(found.x, expected.x)


def test_one_step_of_mime_is_a_step_of_the_server_s_optimizer_on_all_data() -> None:
    """With one step y is x, so that the correction leaves the mean gradient of the cohort."""
    q = Quadratics.random(4, sizes=(1, 2, 3, 4))
    x, m, p = q.start, 0 * q.start, q.weights("samples")
    for state, work, _ in q.play(Mime(), LocalSettings(lr=0.2, steps=1, batch_size=1), 4):
        gradient = p @ (q.matrices @ x - q.vectors)
        x, m = x - 0.2 * (0.1 * gradient + 0.9 * m), 0.1 * gradient + 0.9 * m
        assert close(state.x, x, 1e-13)
        if work.round == 4:
            break


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("local", [{"optimizer": "adam"}, {"momentum": 0.9}, {"clip": 1.0}])
def test_clients_have_no_optimizer_of_their_own(name: str, local: dict[str, Any]) -> None:
    with pytest.raises(InvalidExperiment) as error:
        fedopt.Experiment(algorithm={"name": name}, local=local)
    assert str(error.value) == (
        f"algorithm.name: the clients of {name} step with the optimizer of algorithm.base; leave local.optimizer at "
        "plain sgd, without momentum, weight_decay or clip"
    )
