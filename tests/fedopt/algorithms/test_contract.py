"""What the contract promises to an algorithm, and what an algorithm must keep to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedopt
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm, ServerRound
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import PREFIX
from fedopt.round.admission import examine
from fedopt.round.federation import Broadcast, Numbers, Update, WorkOrder
from fedopt.round.plausibility import Bounds
from fedopt.task import Task
from fedopt.vectors.layout import Layout, Vectors
from tests.quadratics import Quadratics, close

LR, STEPS = 0.05, 4
LOCAL = LocalSettings(lr=LR, steps=STEPS, batch_size="full")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_finish_returns_what_the_algorithm_declares(name: str) -> None:
    """Training refuses any other names; the record has the numbers that are not declared for the server."""
    algorithm = ALGORITHMS.resolve(name)()
    q = Quadratics.random(3)
    local = LocalSettings(**{"lr": LR, "steps": STEPS, "batch_size": "full", **algorithm.local_defaults})
    state, work, federation = next(q.play(algorithm, local, 3))
    own = {key for key in state.server if not key.startswith(PREFIX)}
    assert own == algorithm.server_state(state.x).keys()
    own = {key for key in federation.states.at(0, 1) if not key.startswith(PREFIX)}
    assert own == algorithm.client_state(state.x).keys()
    fields = set() if algorithm.record is None else set(algorithm.record.model_fields)
    assert set(work.numbers) <= fields | set(algorithm.sends_numbers)


class Wrong(FedAvg):
    what: str = "up"

    def client_state(self, x: Tensor) -> Vectors:
        return {"s": torch.zeros_like(x)}

    def finish(self, work: LocalWork) -> Finished:
        up = {"dx": work.displacement, **({"dy": work.displacement} if self.what == "up" else {})}
        return Finished(up, {} if self.what == "state" else work.state)


class WithoutNumber(FedAvg):
    sends_numbers: ClassVar[tuple[str, ...]] = ("tau",)


@pytest.mark.parametrize(
    ("algorithm", "complaint"),
    [
        (Wrong(what="up"), r"finish sends \['dx', 'dy'\], and sends_up declares \['dx'\]"),
        (Wrong(what="state"), r"finish returned the state \[\], not \['s'\]"),
        (WithoutNumber(), r"finish lacks the numbers \['tau'\]"),
    ],
)
def test_an_algorithm_that_returns_something_else_is_named(algorithm: Algorithm, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        next(Quadratics.random(3).play(algorithm, LOCAL, 3))


def test_an_update_without_a_number_that_the_server_needs_is_refused() -> None:
    broadcast, bounds = Broadcast(1, torch.zeros(3)), Bounds(vectors=("dx",), numbers=("tau",))
    good = Update(1, 0, Numbers(2, 4, 0.5, {"tau": 4.0}), {"dx": torch.ones(3)}, 0, 0)
    assert examine(good, broadcast, 2, bounds) is None
    for bad, reason in [
        (replace(good, numbers=Numbers(2, 4, 0.5)), "it lacks the number tau"),
        (replace(good, up={}), "it brings [] where ['dx'] belong"),
        (replace(good, up={"dx": torch.ones(3), "dy": torch.ones(3)}), "it brings ['dx', 'dy'] where ['dx'] belong"),
    ]:
        refusal = examine(bad, broadcast, 2, bounds)
        assert refusal is not None
        assert refusal.reason == reason


class Nova(FedAvg):
    """Divides each displacement by the client's own steps, and multiplies the mean by the mean steps (FedNova)."""

    sends_numbers: ClassVar[tuple[str, ...]] = ("tau",)

    def finish(self, work: LocalWork) -> Finished:
        assert torch.equal(work.rates, work.steps * LR)
        return Finished({"dx": work.displacement / work.steps[:, None]}, {}, {"tau": work.steps})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Any) -> tuple[Tensor, Vectors]:
        return x + totals.number("tau") * totals.mean("dx"), server


def test_numbers_are_weighted_as_vectors_are() -> None:
    sizes = (1, 2, 3, 4)
    q, local = Quadratics.random(4, sizes=sizes), LocalSettings(lr=LR, epochs=2, batch_size=1)
    state, _, _ = next(q.play(Nova(), local, 4))
    p, steps = q.weights("samples"), 2 * np.array(sizes)
    moves = [
        np.linalg.matrix_power(np.eye(3) - LR * a, int(k)) @ (q.start - m) + m - q.start
        for a, k, m in zip(q.matrices, steps, q.minimisers, strict=True)
    ]
    normalized = np.stack(moves) / steps[:, None]
    assert close(state.x, q.start + (p @ steps) * (p @ normalized), 1e-13)


class FromHalf(FedAvg):
    """Clients begin halfway to their own vector."""

    def client_state(self, x: Tensor) -> Vectors:
        return {"own": torch.ones_like(x)}

    def start(self, local: LocalStart) -> Tensor:
        return 0.5 * (local.x + local.state["own"])

    def finish(self, work: LocalWork) -> Finished:
        return Finished({"dx": work.displacement}, {"own": work.state["own"]})


def test_clients_begin_where_the_algorithm_says_and_move_from_x() -> None:
    q = Quadratics.random(4)
    state, _, _ = next(q.play(FromHalf(), LOCAL, 4))
    begin = 0.5 * (q.start + 1)
    ends = q.minimisers + np.einsum("nij,nj->ni", q.contractions(LR, STEPS), begin - q.minimisers)
    assert close(state.x, q.weights("samples") @ ends, 1e-13)


class Noisy(FedAvg):
    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Any) -> tuple[Tensor, Vectors]:
        return x + torch.from_numpy(round_.stream().standard_normal(len(x))), server


def test_the_servers_chance_is_of_its_round_and_seed() -> None:
    def path(seed: int) -> list[Tensor]:
        q = Quadratics.random(3)
        return [state.x - before for state, before in pairs(q, seed)]

    def pairs(q: Quadratics, seed: int) -> Sequence[tuple[Any, Tensor]]:
        states = [state for state, _, _ in islice(q.play(Noisy(), LOCAL, 3, seed=seed), 3)]
        return list(zip(states, [torch.from_numpy(q.start), states[0].x, states[1].x], strict=True))

    first, again, other = path(0), path(0), path(1)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not any(a.equal(b) for a in first for b in other)
    assert not first[0].equal(first[1])


class Looking(FedAvg):
    """Remembers what it was shown."""

    seen: ClassVar[list[tuple[LocalWork, Tensor, Tensor, Tensor]]] = []

    def finish(self, work: LocalWork) -> Finished:
        self.seen.append((work, work.full_loss(), work.full_gradient(), work.layout.unpack(work.displacement)))
        return super().finish(work)


def test_rows_have_gaps_that_the_layout_leaves_out_and_losses_at_x_are_the_mean_over_all_data() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x, y = torch.randn(30, 3).double(), torch.randint(0, 2, (30,))
    layout = Layout.of(module)
    start = layout.flatten(module)
    training = LocalTraining(Task(module), Looking(), LocalSettings(lr=0.1, epochs=1, batch_size=4), 0)
    trainer = LaneTrainer(training, (x, y), Execution("stacked", 2))
    parts = [np.arange(18), np.arange(18, 30)]
    trainer.train(Broadcast(1, start), [Job(WorkOrder(i, None), part, {}) for i, part in enumerate(parts)])
    ((work, losses, gradients, moved),) = Looking.seen
    assert work.x.shape[0] > layout.size == moved.shape[1]
    assert work.layout.width == work.x.shape[0]
    assert torch.equal(work.samples, torch.tensor([18.0, 12.0]).double())
    assert torch.equal(work.steps, torch.tensor([5.0, 3.0]).double())
    for lane, part in enumerate(parts):
        loss = nn.functional.cross_entropy(module(x[part]), y[part])
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(module.parameters()))])
        assert losses[lane].item() == pytest.approx(loss.item(), rel=1e-12)
        assert torch.allclose(work.layout.unpack(gradients[lane]), gradient, rtol=1e-10, atol=1e-14)


class Shifted(FedAvg):
    """Each client would use the model moved by its own last displacement, ten times."""

    def client_state(self, x: Tensor) -> Vectors:
        return {"last": torch.zeros_like(x)}

    def finish(self, work: LocalWork) -> Finished:
        return Finished({"dx": work.displacement}, {"last": work.displacement})

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        return x + state["last"]


def test_personal_models_are_what_is_evaluated_on_the_clients_shares(tmp_path: Any) -> None:
    sections: Mapping[str, Any] = {
        "data": {"clients": 4},
        "run": {"rounds": 2, "participation": 1.0, "workers": 1},
        "metrics": {"clients_every": 1},
    }
    plain = fedopt.run(fedopt.Experiment(**sections), tmp_path / "plain")
    own = fedopt.run(fedopt.Experiment(**sections, algorithm=Shifted()), tmp_path / "own")
    two = fedopt.run(
        fedopt.Experiment(**{**sections, "run": {**sections["run"], "workers": 2}}, algorithm=Shifted()),
        tmp_path / "two",
    )
    assert own.summary.weights_sha256 == plain.summary.weights_sha256
    assert two.records[1].clients == own.records[1].clients
    for mine, theirs in zip(own.records, plain.records, strict=True):
        assert mine.clients is not None
        assert theirs.clients is not None
        assert mine.test_loss == theirs.test_loss, "the test set is evaluated by the global model"
        assert mine.clients.mean_loss != theirs.clients.mean_loss
