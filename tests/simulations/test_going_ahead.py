"""A model that is evaluated while the next round is trained: the same records, whatever ends the run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import fedopt
from fedopt.errors import Diverged, RunStopped
from fedopt.round.federation import Broadcast, Update, WorkOrder
from fedopt.runs import runner
from fedopt.runs.directory import RunDirectory
from fedopt.runs.evaluation import Evaluation, Evaluator
from fedopt.runs.history import RoundRecord
from fedopt.runs.runner import Interrupted
from simulations import embedded
from simulations.virtual import VirtualFederation

ALWAYS, NEVER = -1.0, 2.0
ROUNDS = 6


def experiment(**run: Any) -> fedopt.Experiment:
    return fedopt.Experiment(
        algorithm={"name": "scaffold"},
        local={"steps": 3},
        metrics={"drift_every": 2, "clients_every": 3},
        run={"rounds": ROUNDS, "cohort": 5, "workers": 2, "checkpoint_every": 2, "keep_models": 1, **run},
    )


def records(out: Path) -> list[dict[str, Any]]:
    """All but what depends on the clock."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The weights of a run that takes one thing after the other; its records are in tmp_path / "expected"."""
    monkeypatch.setattr(runner, "WORTH_GOING_AHEAD", NEVER)
    weights = fedopt.run(experiment(), tmp_path / "expected").summary.weights_sha256
    monkeypatch.setattr(runner, "WORTH_GOING_AHEAD", ALWAYS)
    return weights


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in its order."""
    happened: list[str] = []
    train, append = VirtualFederation.train, RunDirectory.append

    def noting_train(
        self: VirtualFederation, broadcast: Broadcast, orders: Sequence[WorkOrder]
    ) -> Generator[Update, None, None]:
        happened.append(f"train {broadcast.round}")
        yield from train(self, broadcast, orders)

    def noting_append(self: RunDirectory, record: RoundRecord) -> None:
        happened.append(f"count {record.round}")
        append(self, record)

    monkeypatch.setattr(VirtualFederation, "train", noting_train)
    monkeypatch.setattr(RunDirectory, "append", noting_append)
    return happened


def in_pairs(first: str, second: str) -> list[str]:
    return [f"{what} {round_}" for round_ in range(1, ROUNDS + 1) for what in (first, second)]


def test_records_and_weights_are_those_of_one_thing_after_the_other(
    expected: str, order: list[str], tmp_path: Path
) -> None:
    summary = fedopt.run(experiment(), tmp_path / "ahead").summary
    trained = [f"train {round_}" for round_ in range(2, ROUNDS + 1)]
    counted = [f"count {round_}" for round_ in range(1, ROUNDS)]
    in_turns = [step for pair in zip(trained, counted, strict=True) for step in pair]
    assert order == ["train 1", *in_turns, f"count {ROUNDS}"]
    assert summary.weights_sha256 == expected
    assert records(tmp_path / "ahead") == records(tmp_path / "expected")
    for file in (tmp_path / "expected" / "models").iterdir():
        assert (tmp_path / "ahead" / "models" / file.name).read_bytes() == file.read_bytes()


def test_short_evaluations_are_waited_for(order: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "WORTH_GOING_AHEAD", NEVER)
    fedopt.run(experiment(), tmp_path / "run")
    assert order == in_pairs("train", "count")


@pytest.mark.usefixtures("expected")
def test_a_target_that_ends_the_run_is_waited_for(order: list[str], tmp_path: Path) -> None:
    fedopt.run(experiment(target_accuracy=1.0, stop_at_target=True), tmp_path / "run")
    assert order == in_pairs("train", "count")


@contextmanager
def stopping_at(round_: int, error: BaseException) -> Iterator[None]:
    """Within, training ends so when half of that round's updates are in."""
    train = VirtualFederation.train

    def stop(
        self: VirtualFederation, broadcast: Broadcast, orders: Sequence[WorkOrder]
    ) -> Generator[Update, None, None]:
        for number, update in enumerate(train(self, broadcast, orders)):
            if broadcast.round == round_ and number == 2:
                raise error
            yield update

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VirtualFederation, "train", stop)
        yield


@pytest.mark.parametrize("round_", [2, 4, 5])
def test_ctrl_c_keeps_the_round_that_was_being_evaluated(expected: str, round_: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    wanted = pytest.raises(Interrupted, match=f"stopped after round {round_ - 1}")
    with stopping_at(round_, KeyboardInterrupt()), wanted:
        fedopt.run(experiment(), out)
    assert [record["round"] for record in records(out)] == list(range(1, round_))
    assert embedded.resume(out, []).summary.weights_sha256 == expected
    assert records(out) == records(tmp_path / "expected")


def test_a_round_that_fails_keeps_the_one_before(expected: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    went = RunStopped("the clients went home")
    with stopping_at(4, went), pytest.raises(RunStopped, match="the clients went home"):
        fedopt.run(experiment(), out)
    assert len(records(out)) == 3
    assert embedded.resume(out, []).summary.weights_sha256 == expected


def test_a_model_found_useless_after_the_next_round_was_trained_never_counts(expected: str, tmp_path: Path) -> None:
    out, evaluated = tmp_path / "run", []
    evaluate = Evaluator.__call__

    def useless(self: Evaluator, x: Tensor) -> Evaluation:
        evaluated.append(x)
        found = evaluate(self, x)
        return dataclasses.replace(found, loss=math.inf) if len(evaluated) == 4 else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "__call__", useless)
        with pytest.raises(Diverged, match=r"round 4.*test loss"):
            fedopt.run(experiment(), out)
    assert len(records(out)) == 3
    assert embedded.resume(out, []).summary.weights_sha256 == expected
    assert records(out) == records(tmp_path / "expected")
