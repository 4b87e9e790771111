"""What an update may claim at most."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fedopt
from fedopt.algorithms.fedavg import FedAvg
from fedopt.errors import Diverged
from fedopt.optimizers.local import LocalSettings
from fedopt.round.admission import examine
from fedopt.round.federation import Broadcast, Numbers, Update, WorkOrder
from fedopt.round.plausibility import REMEMBERED, AdmissionSettings, Bounds, largest_norms, remember
from fedopt.round.selection import Terms
from fedopt.runs.checkpoint import Manifest
from simulations.embedded import resume
from tests.fedopt.round.test_loop import Losing
from tests.quadratics import Quadratics, close
from tests.rounds import play_round

X = torch.tensor([3.0, 4.0])  # |x| = 5
BROADCAST = Broadcast(round=3, x=X)
NUMBERS = Numbers(samples=10, steps=5, loss=0.5)
GOOD = Update(3, 1, NUMBERS, up={"dx": torch.tensor([0.6, 0.8])}, bytes_down=8, bytes_up=8)
LIMITS = AdmissionSettings(largest_norm=10.0, largest_loss=100.0, largest_samples=50)
BOUNDS = Bounds(LIMITS, steps=lambda samples, round_, client: samples // 2)
USUAL = {"dx": (1.0, 2.0, 3.0)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"up": {"dx": torch.tensor([12.0, 15.9])}}, None),
        ({"up": {"dx": torch.tensor([12.0, 16.1])}}, "dx is 20.1 long, where at most 20 is plausible"),
        ({"numbers": replace(NUMBERS, loss=100.0, own={"error": -100.0})}, None),
        ({"numbers": replace(NUMBERS, loss=101.0)}, "its loss is 101, beyond 100 (admission.largest_loss)"),
        ({"numbers": replace(NUMBERS, loss=-1e308)}, "its loss is -1e+308, beyond 100 (admission.largest_loss)"),
        (
            {"numbers": replace(NUMBERS, own={"error": 1e308})},
            "its error is 1e+308, beyond 100 (admission.largest_loss)",
        ),
        ({"numbers": replace(NUMBERS, steps=6)}, "it reports 6 steps, its order asks for 5"),
        ({"numbers": replace(NUMBERS, steps=2**62)}, f"it reports {2**62} steps, its order asks for 5"),
    ],
)
def test_an_update_beyond_a_bound_is_refused(change: dict[str, Any], reason: str | None) -> None:
    refusal = examine(replace(GOOD, **change), BROADCAST, 10, BOUNDS, USUAL)
    if reason is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.reason.startswith(reason)


def test_samples_beyond_the_bound_are_refused() -> None:
    refusal = examine(replace(GOOD, numbers=replace(NUMBERS, samples=51, steps=1)), BROADCAST, 51, BOUNDS, USUAL)
    assert refusal is not None
    assert refusal.reason == "it reports 51 samples, more than 50 (admission.largest_samples)"


def test_the_bound_of_a_length() -> None:
    settings = AdmissionSettings(largest_norm=10.0)
    assert largest_norms(X, {}, ["dx"], settings) == {"dx": 50.0}, "in the first round, ten times the model"
    assert largest_norms(0 * X, {}, ["dx"], settings) == {"dx": pytest.approx(10 * math.sqrt(2))}
    assert largest_norms(X, {"dx": (0.0, 0.0)}, ["dx"], settings) == {"dx": 50.0}, "nothing has moved so far"
    assert largest_norms(X, {"dx": (1e-9, 1e-9)}, ["dx"], settings) == {"dx": 5.0}, "as long as the model, always"
    assert largest_norms(X, {"dx": (7.0, 1.0, 4.0)}, ["dx", "dc"], settings) == {"dx": 40.0, "dc": 50.0}


def test_what_is_remembered_is_the_median_of_each_round() -> None:
    norms: dict[str, tuple[float, ...]] = {}
    for number in range(REMEMBERED + 5):
        norms = remember(norms, [{"dx": 1e9}, {"dx": float(number)}, {"dx": -1.0 + number}])
    assert norms == {"dx": tuple(float(number) for number in range(5, REMEMBERED + 5))}


class Absurd(Losing):
    """Client 2's update arrives a million times too long."""

    def train(self, broadcast: Broadcast, orders: Sequence[WorkOrder]) -> Generator[Any, None, None]:
        for update in self.inner.train(broadcast, orders):
            yield update if update.client != 2 else replace(update, up={n: 1e6 * v for n, v in update.up.items()})


@pytest.mark.parametrize("rounds_before", [0, 3])
def test_an_absurd_update_is_left_out_of_the_mean(rounds_before: int) -> None:
    problem = Quadratics.random(4)
    local = LocalSettings(lr=0.05, epochs=None, steps=3, batch_size="full")
    state, inner = problem.federation(FedAvg(), local)
    for _ in range(rounds_before):
        state, _ = play_round(state, FedAvg(), inner, Terms.all_of(4))
    after, work = play_round(state, FedAvg(), Absurd(inner), Terms(4, 4, 2))
    assert list(work.left_out) == [2]
    start = state.x.numpy()
    ends = [
        problem.minimisers[i] + problem.contractions(0.05, 3)[i] @ (start - problem.minimisers[i]) for i in (0, 1, 3)
    ]
    assert close(after.x, sum(ends) / 3)
    with pytest.raises(Diverged, match=r"client 2: dx is .* long, where at most .* is plausible"):
        play_round(state, FedAvg(), Absurd(inner), Terms.all_of(4))


def test_a_resumed_run_knows_how_long_updates_were(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"algorithm": {"name": "scaffold"}, "run": {"rounds": 6, "checkpoint_every": 2}}
    whole = fedopt.run(fedopt.Experiment(**sections), tmp_path / "whole")
    sections["run"]["rounds"] = 3
    fedopt.run(fedopt.Experiment(**sections), tmp_path / "half")
    resumed = resume(tmp_path / "half", ["run.rounds=6", "admission.largest_norm=500.0"])
    assert resumed.summary.weights_sha256 == whole.summary.weights_sha256
    manifests = [
        Manifest.model_validate_json((tmp_path / run / "checkpoint" / "checkpoint.json").read_bytes())
        for run in ("whole", "half")
    ]
    assert manifests[0].norms == manifests[1].norms
    assert {name: len(medians) for name, medians in manifests[0].norms.items()} == {"dx": 6, "dc": 6}


def test_a_checkpoint_from_before_there_were_bounds_is_whole() -> None:
    before = Manifest(format=1, round=1, experiment={}, accepted={"0": 1}, seconds=1.0)
    sealed = '{"format":1,"round":1,"experiment":{},"accepted":{"0":1},"seconds":1.0}'
    assert before.sealed().sha256 == hashlib.sha256(sealed.encode()).hexdigest()
