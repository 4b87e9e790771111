"""Observers: functions and objects that follow a run, read its model, and may end it."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import torch
from torch import nn

import fedopt
from fedopt.data.loading import load_dataset
from fedopt.errors import InvalidExperiment, NotStored, RunStopped
from fedopt.models.build import build_model
from fedopt.runs.history import RoundRecord
from fedopt.runs.view import RunView
from fedopt.vectors.layout import fingerprint


def small(rounds: int = 4, workers: int = 1) -> fedopt.Experiment:
    return fedopt.Experiment(
        algorithm={"name": "scaffold"}, run={"rounds": rounds, "cohort": 3, "eval_every": 3, "workers": workers}
    )


def test_hooks_are_called_in_order_and_each_is_optional(tmp_path: Path) -> None:
    calls: list[str] = []

    class Everything:
        def begin(self, run: RunView) -> None:
            calls.append(f"begin {run.experiment.run.rounds} {run.directory.name}")

        def note(self, sentence: str) -> None:
            calls.append("note")

        def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
            calls.append(f"started {directory.name} {rounds_done}/{rounds}")

        def round_done(self, record: RoundRecord) -> None:
            calls.append(f"round {record.round}")

        def finished(self, history: fedopt.History) -> None:
            calls.append(f"finished {history.summary.rounds} {(history.directory / 'summary.json').exists()}")

        def ended(self) -> None:
            calls.append("ended")

    class OnlyTheEnd:
        def ended(self) -> None:
            calls.append("the end")

    rounds: list[int] = []
    fedopt.run(small(2), tmp_path / "run", [Everything(), OnlyTheEnd(), lambda record: rounds.append(record.round)])
    assert [call for call in calls if call != "note"] == [
        *("begin 2 run", "started run 0/2", "round 1", "round 2", "finished 2 True", "ended", "the end")
    ]
    assert "note" in calls
    assert rounds == [1, 2]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_observer_reads_the_model_of_its_round(tmp_path: Path, workers: int) -> None:
    seen: dict[int, str] = {}
    accuracies: dict[int, float] = {}
    data = load_dataset(small().data, 0)

    def look(record: RoundRecord, run: RunView) -> None:
        model = run.model()
        assert isinstance(model, nn.Module)
        assert not model.training
        seen[record.round] = fingerprint(run.weights())
        assert fingerprint(model.state_dict()) == seen[record.round]
        with torch.no_grad():
            accuracies[record.round] = (model(data.x_test).argmax(1) == data.y_test).double().mean().item()
            for parameter in model.parameters():
                parameter.fill_(torch.nan)  # a copy: the run does not notice

    history = fedopt.run(small(3, workers), tmp_path / "run", [look])
    assert history.summary.weights_sha256 == fedopt.run(small(3), tmp_path / "unseen").summary.weights_sha256
    for rounds in (1, 2):
        assert seen[rounds] == fedopt.run(small(rounds), tmp_path / f"{rounds}").summary.weights_sha256
    assert seen[3] == history.summary.weights_sha256
    assert accuracies[3] == pytest.approx(history.summary.final.test_accuracy)


@pytest.mark.parametrize("workers", [1, 2])
def test_stop_run_ends_the_run_after_that_round_and_it_may_go_on(tmp_path: Path, workers: int) -> None:
    run, after = tmp_path / "run", []

    def enough(record: RoundRecord) -> None:
        if record.round == 2:
            raise fedopt.StopRun

    def behind(record: RoundRecord) -> None:
        after.append(record.round)

    history = fedopt.run(small(workers=workers), run, [enough, behind])
    assert after == [1, 2], "every observer sees the last record"
    two = fedopt.run(small(2), tmp_path / "two")
    assert history.summary.rounds == len(history.records) == 2
    assert history.summary.weights_sha256 == two.summary.weights_sha256
    assert history.summary.final == two.summary.final
    assert (run / "summary.json").exists()
    whole = fedopt.run(small(), tmp_path / "whole")
    assert fedopt.resume(run).summary.weights_sha256 == whole.summary.weights_sha256


def test_a_failing_observer_ends_the_run_with_its_name_and_its_traceback(tmp_path: Path) -> None:
    run, after = tmp_path / "run", []

    def clumsy(record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyError("no such key")

    with pytest.raises(
        RunStopped, match=r"^the observer clumsy failed in round_done: KeyError: 'no such key'; continue with: "
    ) as caught:
        fedopt.run(small(), run, [clumsy, lambda record: after.append(record.round)])
    assert "in clumsy" in "".join(traceback.format_exception(caught.value))
    assert after == [1, 2]
    assert fedopt.resume(run).summary.weights_sha256 == fedopt.run(small(), tmp_path / "w").summary.weights_sha256


def test_a_failure_before_the_first_round_or_after_the_last_is_named_too(tmp_path: Path) -> None:
    class Late:
        def finished(self, history: fedopt.History) -> None:
            raise ValueError

        def ended(self) -> None:
            raise TypeError("twice")

    class Early:
        def begin(self, run: RunView) -> None:
            raise fedopt.StopRun

    with pytest.raises(RunStopped, match=r"Late failed in finished: ValueError; the run itself is complete") as caught:
        fedopt.run(small(1), tmp_path / "late", [Late()])
    (note,) = caught.value.__notes__
    assert note == ("the observer Late failed in ended: TypeError: twice")
    assert (tmp_path / "late" / "summary.json").exists()
    with pytest.raises(RunStopped, match=r"Early failed in begin: StopRun has an effect in round_done only; continue"):
        fedopt.run(small(1), tmp_path / "early", [Early()])


def test_a_full_disk_is_a_full_disk_in_an_observer_too(tmp_path: Path) -> None:
    def writer(record: RoundRecord) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(NotStored, match="cannot be written: No space left on device"):
        fedopt.run(small(2), tmp_path / "run", [writer])


def test_what_is_no_observer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Misspelled:
        def on_round(self, record: RoundRecord) -> None: ...

    for observer, sentence in [
        (Misspelled, r"Misspelled is a class; give an object, Misspelled\(\)$"),
        (Misspelled(), r"Misspelled is no function and has none of the methods begin, note, started, round_done"),
        (lambda: None, r"must take \(record\) or \(record, run\)$"),
        (lambda a, b, c: None, r"must take \(record\) or \(record, run\)$"),
    ]:
        with pytest.raises(InvalidExperiment, match=sentence):
            fedopt.run(small(), tmp_path / "run", [observer])
        assert not (tmp_path / "run").exists()


def test_print_is_an_observer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fedopt.run(small(1), tmp_path / "run", [print])
    assert capsys.readouterr().out.startswith("round=1 cohort=")


def test_the_view_of_the_first_moment_has_the_initial_weights(tmp_path: Path) -> None:
    begun: list[str] = []

    class First:
        def begin(self, run: RunView) -> None:
            begun.append(fingerprint(run.weights()))

    fedopt.run(small(1), tmp_path / "run", [First()])
    assert begun == [fingerprint(build_model(small().model, (1, 8, 8), 10, seed=0).state_dict())]


@pytest.mark.deployment
@pytest.mark.slow
def test_on_ray_observers_read_the_model_and_end_the_run(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(record: RoundRecord, run: RunView) -> None:
        seen.append(fingerprint(run.model().state_dict()))
        if record.round == 2:
            raise fedopt.StopRun

    def clumsy(record: RoundRecord) -> None:
        raise KeyError("no such key")

    experiment = small().replace(data={"clients": 4}, run={"device": "cpu", "eval_every": 1})
    history = fedopt.run(experiment, tmp_path / "ray", [look], "ray")
    here = fedopt.run(experiment.replace(run={"rounds": 2}), tmp_path / "here")
    assert history.summary.rounds == 2
    assert seen[-1] == history.summary.weights_sha256 == here.summary.weights_sha256
    with pytest.raises(RunStopped, match=r"the observer clumsy failed in round_done: KeyError: .*; continue with: "):
        fedopt.run(experiment, tmp_path / "clumsy", [clumsy], "ray")
    assert fedopt.load(tmp_path / "clumsy").summary.rounds == 1
