"""The hooks that change steps by more than a correction of their gradients, and the exchange before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedopt
from clients.lanes.backends import Backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms.base import SURVEYED, Participation, ServerRound
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import LocalStart
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.task import Task
from fedopt.vectors.layout import Layout, Vectors
from fedopt.vectors.totals import Totals
from tests.quadratics import Array, Quadratics, close

LR, STEPS = 0.05, 4
LOCAL = LocalSettings(lr=LR, steps=STEPS, batch_size="full")


def after_one_round(q: Quadratics, lane_ends: list[Array]) -> Array:
    expected: Array = q.weights("samples") @ np.stack(lane_ends)
    return expected


class AtAnotherPoint(FedAvg):
    """Steps with the gradient at y minus half of the one at x, and with the one at y evaluated twice."""

    def begin(self, local: LocalStart) -> Vectors:
        return {"x": local.x}

    def gradient(self, at: Callable[[Tensor], Tensor], y: Tensor, prepared: Vectors) -> Tensor:
        first, at_x = at(y), at(prepared["x"])
        return 0.5 * (first + at(y)) - 0.5 * at_x


@pytest.mark.parametrize("backend", ["each", "vmap"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_gradient_is_evaluated_at_any_point(backend: Backend, momentum: float) -> None:
    q = Quadratics.random(3, sizes=(2, 1, 3))
    local = LOCAL.model_copy(update={"momentum": momentum})
    state, _, _ = next(q.play(AtAnotherPoint(), local, 3, backend=backend))
    ends = []
    for a, b in zip(q.matrices, q.vectors, strict=True):
        y, velocity = q.start.copy(), np.zeros(3)
        for _ in range(STEPS):
            velocity = momentum * velocity + (a @ y - b) - 0.5 * (a @ q.start - b)
            y = y - LR * velocity
        ends.append(y)
    assert close(state.x, after_one_round(q, ends), 1e-13)


@pytest.mark.parametrize("backend", ["stacked", "vmap"])
def test_other_points_are_on_the_same_minibatch_on_every_backend(backend: Backend) -> None:
    """Ragged clients of a small network: their steps equal those of autograd, client by client."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, y = torch.randn(22, 3).double(), torch.randint(0, 2, (22,))
    start = Layout.of(module).flatten(module)
    training = LocalTraining(Task(module), AtAnotherPoint(), LocalSettings(lr=0.1, epochs=2, batch_size=4), 0)
    parts = [np.arange(13), np.arange(13, 22)]

    def moves(backend: Backend, lanes: int) -> list[Tensor]:
        trainer = LaneTrainer(training, (x, y), Execution(backend, lanes))
        jobs = [Job(WorkOrder(client, None), part, {}) for client, part in enumerate(parts)]
        groups = [trainer.train(Broadcast(1, start), jobs[first : first + lanes]) for first in range(0, 2, lanes)]
        results = {result.order.client: result.up["dx"].clone() for group in groups for result in group}
        return [results[0], results[1]]

    for found, alone in zip(moves(backend, 2), moves("each", 1), strict=True):
        assert torch.allclose(found, alone, rtol=1e-11, atol=1e-14)


class Pushed(FedAvg):
    """Half of the optimizer's step, and a step along a constant."""

    @property
    def step_scale(self) -> float:
        return 0.5

    def begin(self, local: LocalStart) -> Vectors:
        return {"along": torch.ones_like(local.x)}

    def push(self, prepared: Vectors) -> Tensor:
        return prepared["along"]


def test_a_push_is_added_behind_the_optimizer() -> None:
    """Under momentum a push enters no velocity."""
    q, sizes = Quadratics.random(2, sizes=(1, 2)), (1, 2)
    local = LocalSettings(lr=LR, epochs=2, batch_size=1, momentum=0.9)
    state, _, _ = next(q.play(Pushed(), local, 2))
    ends = []
    for a, b, n in zip(q.matrices, q.vectors, sizes, strict=True):
        y, velocity = q.start.copy(), np.zeros(3)
        for _ in range(2 * n):
            velocity = 0.9 * velocity + a @ y - b
            y = y - LR * (0.5 * velocity + np.ones(3))
        ends.append(y)
    assert close(state.x, after_one_round(q, ends), 1e-13)


class Surveying(FedAvg):
    """Every client takes the cohort's mean gradient at x for its own."""

    surveys: ClassVar[bool] = True

    def begin(self, local: LocalStart) -> Vectors:
        return {"shift": local.down[SURVEYED] - local.full_gradient()}

    def shift(self, prepared: Vectors) -> Tensor:
        return prepared["shift"]


def test_the_cohorts_mean_gradient_comes_down_before_the_steps() -> None:
    """With one step every client moves along the mean gradient of the cohort, weighted by samples."""
    sizes = (1, 2, 3, 4)
    q, local = Quadratics.random(4, sizes=sizes), LocalSettings(lr=LR, steps=1, batch_size="full")
    x = q.start
    for state, work, _ in islice(q.play(Surveying(), local, 2), 3):
        n = np.array(sizes, dtype=float)[work.cohort]
        gradients = np.stack([q.matrices[c] @ x - q.vectors[c] for c in work.cohort])
        x = x - LR * (n / n.sum()) @ gradients
        assert close(state.x, x, 1e-13)
        assert state.server == {}, "advance sees the mean gradient, and no checkpoint stores it"
        vector = 3 * 8
        assert (work.bytes_down, work.bytes_up) == (2 * vector * (1 + 2), 2 * vector * (1 + 1))
        assert work.local_steps == 2


@pytest.mark.parametrize(
    "sections", [{}, {"channel": {"stages": ["tests.outside.stage:EightBits"]}}], ids=["plain", "channel"]
)
def test_surveys_give_the_same_bits_over_workers(tmp_path: Path, sections: Mapping[str, Any]) -> None:
    def digest(workers: int) -> str:
        experiment = fedopt.Experiment(
            data={"clients": 6}, algorithm=Surveying(), run={"rounds": 3, "cohort": 3, "workers": workers}, **sections
        )
        return fedopt.run(experiment, tmp_path / str(workers)).summary.weights_sha256

    assert digest(1) == digest(2)


class Opinionated(FedAvg):
    local_defaults: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "steps": 3}

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        if local.optimizer.name == "sam":
            return "opinionated takes no sam; choose adam"
        return f"opinionated needs all {terms.clients} clients" if terms.cohort < terms.clients else None


EVERYONE = {"participation": 1.0}


def test_an_algorithm_has_defaults_of_its_own_for_local_work() -> None:
    plain = fedopt.Experiment(algorithm=Opinionated(), run=EVERYONE)
    assert (plain.local.optimizer.name, plain.local.steps, plain.local.epochs) == ("adam", 3, None)
    asked = fedopt.Experiment(algorithm=Opinionated(), run=EVERYONE, local={"optimizer": "sgd", "epochs": 2})
    assert (asked.local.optimizer.name, asked.local.steps, asked.local.epochs) == ("sgd", None, 2)
    back = plain.replace(algorithm="fedavg")
    assert back == fedopt.Experiment(run=EVERYONE), "defaults of the algorithm go with it"
    tuned = fedopt.Experiment(algorithm=Opinionated(), run=EVERYONE, local={"betas": (0.5, 0.9), "lr": 0.01})
    assert tuned.local.optimizer.model_dump()["betas"] == (0.5, 0.9)
    assert fedopt.Experiment(**tuned.model_dump()) == tuned


def test_an_algorithm_objects_to_what_it_cannot_run_with() -> None:
    with pytest.raises(InvalidExperiment, match=r"^algorithm.name: opinionated takes no sam; choose adam$"):
        fedopt.Experiment(algorithm=Opinionated(), local={"optimizer": "sam"}, run=EVERYONE)
    with pytest.raises(InvalidExperiment, match=r"^algorithm.name: opinionated needs all 20 clients$"):
        fedopt.Experiment(algorithm=Opinionated())


class Passing(Surveying):
    """Its server returns everything that it was given."""

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x + totals.mean("dx"), server


def test_the_surveyed_gradient_is_no_part_of_the_servers_state() -> None:
    q, local = Quadratics.random(4), LocalSettings(lr=LR, steps=1, batch_size="full")
    for state, _, _ in islice(q.play(Passing(), local, 2), 2):
        assert state.server == {}


def test_the_old_signature_of_begin_is_explained() -> None:
    class Old(FedAvg):
        def begin(self, x: Tensor, down: Vectors, state: Vectors) -> Vectors:  # type: ignore[override]
            return {"x": x}

    with pytest.raises(InvalidExperiment, match=r"begin of Old must take \(self, local\); write local.x, local.down"):
        Old()
