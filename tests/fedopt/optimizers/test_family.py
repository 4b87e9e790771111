"""Optimizers and schedules as families: from outside, as objects, and the facts that others read off them."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.optimizers.adam import Adam
from fedopt.optimizers.adamw import AdamW
from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer, subtract
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sam import Sam
from fedopt.optimizers.sgd import Sgd
from fedopt.schedules.base import Schedule
from fedopt.vectors.layout import RowLayout
from simulations.sizing import vectors_per_lane
from tests.quadratics import Quadratics, close


class SignSgd(Optimizer):
    floor: float = 0.0

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return SignSgdLanes(theta)


class SignSgdLanes(LaneOptimizer):
    def step(self, gradient: Gradient) -> None:
        subtract(self.active, self.next_rate(), gradient().sign())


class Halving(Schedule):
    from_round: int = 1

    def rate(self, lr: float, round_: int, step: int) -> float:
        return lr * float(0.5 ** max(0, round_ - self.from_round))


@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()], ids=["fedavg", "scaffold"])
@pytest.mark.parametrize("as_object", [False, True])
def test_an_optimizer_and_a_schedule_from_outside_take_the_steps(algorithm: Algorithm, as_object: bool) -> None:
    q, lr = Quadratics.random(4), 0.1
    optimizer = SignSgd() if as_object else f"{__name__}:SignSgd"
    schedule = Halving(from_round=1) if as_object else f"{__name__}:Halving"
    local = LocalSettings(optimizer=optimizer, schedule=schedule, lr=lr, steps=1, batch_size="full")
    assert local.optimizer == SignSgd()
    rounds = q.play(algorithm, local, cohort=4)
    x, c, c_i = q.start, np.zeros(3), np.zeros((4, 3))
    for number in range(3):
        raw = np.einsum("nij,j->ni", q.matrices, x) - q.vectors
        seen = raw - c_i + c if isinstance(algorithm, Scaffold) else raw
        x, c, c_i = x - lr / 2**number * np.sign(seen).mean(axis=0), raw.mean(axis=0), raw
        state, _, _ = next(rounds)
        assert close(state.x, x, 1e-13)


def test_an_experiment_with_them_is_written_and_read_flat() -> None:
    local = {"optimizer": f"{__name__}:SignSgd", "floor": 0.5, "schedule": f"{__name__}:Halving", "from_round": 3}
    experiment = Experiment(local=local)
    written = experiment.model_dump(mode="json", exclude_none=True)
    assert {key: written["local"][key] for key in local} == local
    assert Experiment(**written) == experiment


def test_a_class_that_is_no_optimizer_is_refused() -> None:
    with pytest.raises(InvalidExperiment, match="is no optimizer: it must be a class that derives"):
        Experiment(local={"optimizer": f"{__name__}:Halving"})


def test_sam_takes_any_base() -> None:
    local = LocalSettings(optimizer="sam", base=f"{__name__}:SignSgd", floor=0.5, rho=0.1)
    assert local.optimizer == Sam(base=SignSgd(floor=0.5), rho=0.1)
    with pytest.raises(InvalidExperiment, match=r"^local\.base: sam cannot wrap another member with a key base"):
        Experiment(local={"optimizer": "sam", "base": "sam"})


def test_keys_that_the_optimizer_does_not_read_are_noted() -> None:
    experiment = Experiment(local={"optimizer": "adamw", "lr": 0.001, "momentum": 0.9, "nesterov": False, "rho": 0.1})
    assert experiment.notes() == [
        "adamw with local.weight_decay = 0 is adam; 0.01 is usual",
        "local.momentum is not used by adamw",
        "local.rho is not used by adamw",
    ]
    assert experiment.unread == {"local.momentum", "local.nesterov", "local.rho"}


@pytest.mark.parametrize(
    ("optimizer", "vectors"),
    [
        (Sgd(), 2),  # theta and the gradient
        (Sgd(momentum=0.9), 4),  # the velocity is written, then read again
        (Sgd(weight_decay=0.1), 4),
        (Adam(), 4),
        (AdamW(weight_decay=0.1), 4),
        (Sam(), 3),
        (Sam(base="adam"), 5),
        (SignSgd(), 4),
    ],
)
def test_the_memory_formula_counts_the_vectors_of_the_optimizer(optimizer: Optimizer, vectors: int) -> None:
    local = {"optimizer": optimizer}
    assert vectors_per_lane(Experiment(local=local)) == vectors
    summed = 2 if optimizer.is_plain_descent else 3
    assert vectors_per_lane(Experiment(local=local, algorithm={"name": "scaffold"})) == vectors + summed
