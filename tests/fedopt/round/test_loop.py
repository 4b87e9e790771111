"""Rounds in which some of the clients are missing."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedopt.algorithms.base import shares
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.errors import RunStopped
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Absence, Broadcast, Score, Update, WorkOrder
from fedopt.round.selection import Terms, select_cohort
from simulations.virtual import VirtualFederation
from tests.quadratics import Quadratics, close
from tests.rounds import play_round

LOCAL = LocalSettings(lr=0.05, epochs=None, steps=3, batch_size="full")


class Losing:
    """A real federation on whose way some answers get lost, or are spoilt. The clients have done the work."""

    name = "losing"
    trains_ahead = False

    def __init__(self, inner: VirtualFederation, lost: set[int] = frozenset(), spoilt: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.inner, self.lost, self.spoilt = inner, lost, spoilt
        self.called_off = 0

    @property
    def samples(self) -> Sequence[int]:
        return self.inner.samples

    def train(self, broadcast: Broadcast, orders: Sequence[WorkOrder]) -> Generator[Update | Absence, None, None]:
        try:
            for update in self.inner.train(broadcast, orders):
                if update.client in self.lost:
                    yield Absence(update.client, "it is gone")
                elif update.client in self.spoilt:
                    yield replace(update, up={name: torch.full_like(v, torch.nan) for name, v in update.up.items()})
                else:
                    yield update
        except GeneratorExit:
            self.called_off += 1

    def evaluate(self, x: torch.Tensor, round_: int, accepted: Any) -> Sequence[Score]:
        return self.inner.evaluate(x, round_, accepted)

    def mean_state(self, accepted: Any, share_of: Any) -> Any:
        return self.inner.mean_state(accepted, share_of)

    def refused(self, client: int) -> None:
        """Nothing: every client has answered, or will."""

    def commit(self, accepted: Any, ahead: bool = False) -> None:
        self.inner.commit(accepted)

    def save(self, folder: Path, accepted: Any) -> None: ...

    def prune(self, folder: Path, accepted: Any) -> None: ...

    def restore(self, folder: Path, accepted: Any) -> None: ...


def test_the_mean_is_over_those_who_answered() -> None:
    problem = Quadratics.random(6, sizes=(1, 2, 3, 4, 5, 6))
    state, inner = problem.federation(FedAvg(), LOCAL)
    p = shares("samples", list(problem.sizes))
    after, work = play_round(state, FedAvg(), Losing(inner, lost={1}, spoilt={4}), Terms(6, 6, 3))

    there = [0, 2, 3, 5]
    steps = problem.contractions(LOCAL.lr, 3)
    ends = problem.minimisers + np.einsum("nij,nj->ni", steps, problem.start - problem.minimisers)
    weights = np.array([p[client] for client in there])
    assert close(after.x, weights @ ends[there] / weights.sum())
    assert work.left_out == {1: "it is gone", 4: "its update was refused: dx is not finite"}
    assert work.cohort == list(range(6))
    assert after.accepted == dict.fromkeys(there, 1)


def test_with_too_few_the_round_does_not_count_and_says_why() -> None:
    problem = Quadratics.random(4)
    state, inner = problem.federation(FedAvg(), LOCAL)
    with pytest.raises(RunStopped, match=r"round 1 has 2 of the 3 updates it needs .* client 0: it is gone; client 3"):
        play_round(state, FedAvg(), Losing(inner, lost={0, 3}), Terms(4, 4, 3))


def test_with_enough_the_rest_is_called_off() -> None:
    problem = Quadratics.random(10)
    state, inner = problem.federation(FedAvg(), LOCAL, lanes=1)
    losing = Losing(inner)
    after, work = play_round(state, FedAvg(), losing, Terms(asked=6, enough=4, least=4))
    assert losing.called_off == 1
    assert work.cohort == select_cohort(10, 6, 0, 1)
    assert list(work.left_out.values()) == ["others were faster"] * 2
    assert len(after.accepted) == 4


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_controls_stay_their_mean_whoever_is_lost(weighting: Any) -> None:
    """c = sum p_i c_i after every round, with lost updates of clients that have changed their own state."""
    problem = Quadratics.random(8, sizes=(1, 2, 3, 4, 5, 6, 7, 8))
    algorithm = Scaffold(weighting=weighting)
    state, inner = problem.federation(algorithm, LOCAL)
    p = shares(weighting, list(problem.sizes))
    rng = np.random.default_rng(0)
    for _ in range(40):
        lost = {int(client) for client in rng.choice(8, 3, replace=False)}
        losing = Losing(inner, lost=lost, spoilt={int(rng.integers(8))})
        state, _ = play_round(state, algorithm, losing, Terms(5, 5, 1))
        inner.commit(state.accepted)
        mean = sum(
            share * inner.states.at(client, state.accepted.get(client))["c_i"].numpy() for client, share in enumerate(p)
        )
        assert close(state.server["c"], np.asarray(mean))
