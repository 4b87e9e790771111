"""What every tracker does: rounds exactly once, over failures and resumes, and a run that goes on without it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

import fedopt
from fedopt.errors import FedoptError, InvalidExperiment, RunStopped
from fedopt.runs.history import History, RoundRecord
from fedopt.tracking import TRACKERS, Tracker, delivery, trackers
from fedopt.tracking.base import Outcome, Tracked
from fedopt.tracking.delivery import Point
from fedopt.tracking.flat import parameters
from fedopt.tracking.ledger import Entry

EXPERIMENT = fedopt.Experiment(run={"rounds": 4, "workers": 1}, metrics={"drift": "layers", "drift_every": 2})


class Store(Tracker):
    """A tracker that stores in memory, and fails while `failing` is set."""

    name = "store"

    def __init__(self) -> None:
        super().__init__()
        self.points: list[Point] = []
        self.files: list[str] = []
        self.outcomes: list[Outcome] = []
        self.failing = False
        self.stop_after = 0

    def open(self, run: Tracked) -> Entry:
        if self.failing:
            raise ConnectionError("nobody answers")
        return Entry(id="one", where="here", round=run.known.round if run.known else 0)

    def send(self, points: Sequence[Point]) -> None:
        if self.failing:
            raise ConnectionError("nobody answers")
        self.points += points

    def attach(self, history: History, files: Sequence[Path]) -> None:
        self.files = [file.name for file in files if file.stat().st_size]

    def close(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    @property
    def rounds(self) -> list[int]:
        return [point.round for point in self.points]


def test_a_tracker_gets_each_round_once_the_files_and_how_the_run_ended(tmp_path: Path) -> None:
    store = Store()
    history = fedopt.run(EXPERIMENT, tmp_path / "run", [store])
    assert store.rounds == [1, 2, 3, 4]
    assert store.files == ["experiment.toml", "summary.json", "model.safetensors", "metrics.jsonl", "report.html"]
    assert store.outcomes == ["finished"]
    lines = [json.loads(line) for line in (history.directory / "metrics.jsonl").read_text().splitlines()]
    for point, line in zip(store.points, lines, strict=True):
        assert point.numbers["test_accuracy"] == line["test_accuracy"]
        assert point.numbers["drift/ratio"] == line["drift"]["ratio"]
        assert point.numbers["drift/layers/1/cosine"] == line["drift"]["layers"]["1"]["cosine"]
        assert ("gradients/zeta2" in point.numbers) == (line["gradients"] is not None)
        assert "round" not in point.numbers
    assert json.loads((history.directory / "tracking.json").read_text()) == {
        "store": {"id": "one", "where": "here", "round": 4}
    }


def test_a_resumed_run_continues_and_a_run_that_was_not_tracked_gives_its_earlier_rounds(tmp_path: Path) -> None:
    def stop(record: object) -> None:
        raise fedopt.StopRun

    first, late = Store(), Store()
    fedopt.run(EXPERIMENT, tmp_path / "run", [first, stop])
    again = Store()
    fedopt.resume(tmp_path / "run", observers=[again])
    assert (first.rounds, again.rounds) == ([1], [2, 3, 4])
    (tmp_path / "run" / "tracking.json").unlink()
    fedopt.resume(tmp_path / "run", ["run.rounds=5"], [late])
    assert late.rounds == [1, 2, 3, 4, 5]


def test_a_tracker_that_fails_is_warned_about_once_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PAUSE", 0.01)
    store = Store()

    def away(record: RoundRecord) -> None:
        store.failing = record.round < 3

    with caplog.at_level(logging.WARNING, logger="fedopt"):
        alone = fedopt.run(EXPERIMENT, tmp_path / "alone")
        tracked = fedopt.run(EXPERIMENT, tmp_path / "run", [away, store])
    assert store.rounds == [1, 2, 3, 4]
    assert [record.getMessage() for record in caplog.records if "could not be logged" in record.getMessage()] == [
        "store: round 1 could not be logged (ConnectionError: nobody answers); the run goes on, and the rounds that "
        "are missing are sent again later"
    ]
    assert tracked.summary.weights_sha256 == alone.summary.weights_sha256


def test_rounds_that_a_tracker_missed_to_the_end_are_named_and_sent_when_the_run_is_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()

    def away(record: RoundRecord) -> None:
        store.failing = True

    with caplog.at_level(logging.WARNING, logger="fedopt"):
        fedopt.run(EXPERIMENT, tmp_path / "run", [away, store])
    assert (tmp_path / "run" / "summary.json").exists()
    assert caplog.records[-1].getMessage() == (
        "store: rounds 1 to 4 are missing there; resuming the run with --track store sends them"
    )
    again = Store()
    fedopt.resume(tmp_path / "run", observers=[again])
    assert again.rounds == [1, 2, 3, 4]
    assert again.outcomes == ["finished"]


def test_a_tracker_that_cannot_start_ends_the_run_before_its_first_round(tmp_path: Path) -> None:
    store = Store()
    store.failing = True
    with pytest.raises(RunStopped, match="tracking with store cannot start: ConnectionError: nobody answers; continue"):
        fedopt.run(EXPERIMENT, tmp_path / "run", [store])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert store.outcomes == []


@pytest.mark.parametrize(("error", "outcome"), [(KeyboardInterrupt(), "stopped"), (FedoptError("no"), "failed")])
def test_a_run_that_does_not_finish_is_closed_as_what_it_is(
    tmp_path: Path, error: BaseException, outcome: Outcome
) -> None:
    def fail(record: object) -> None:
        raise error

    store = Store()
    with pytest.raises(FedoptError):
        fedopt.run(EXPERIMENT, tmp_path / "run", [store, fail])
    assert (store.outcomes, store.rounds, store.files) == ([outcome], [1], [])


def test_a_tracker_is_chosen_by_name_from_here_or_outside_and_a_wrong_one_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [type(tracker) for tracker in trackers([f"{__name__}:Store"])] == [Store]
    assert {"tensorboard", "mlflow", "wandb"} <= set(TRACKERS)
    with pytest.raises(InvalidExperiment, match=r"--track mlfow: unknown tracker 'mlfow'; did you mean mlflow\?"):
        trackers(["mlfow"])
    with pytest.raises(InvalidExperiment, match="is no tracker: it must be a class that derives from"):
        trackers(["json:JSONDecoder"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidExperiment, match=r"needs the package wandb, .*; install it with pip install 'fedopt\["):
        trackers(["wandb"])


def test_parameters_are_the_keys_of_the_experiment() -> None:
    found = parameters(
        fedopt.Experiment(algorithm={"name": "scaffold"}, model={"name": "mlp", "hidden": [8, 4]}, run={"rounds": 7})
    )
    assert found["algorithm.name"] == "scaffold"
    assert found["run.rounds"] == 7
    assert found["model.hidden"] == "[8, 4]"
