"""`fedopt.rounds`: step, look and stop, with the bits of `fedopt.run`."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.process
from pathlib import Path

import pytest
import torch

import fedopt
from fedopt.errors import InvalidExperiment, RunStopped
from fedopt.runs.history import RoundRecord
from fedopt.vectors.layout import fingerprint


def small(rounds: int = 4, workers: int = 1, seed: int = 0) -> fedopt.Experiment:
    return fedopt.Experiment(
        algorithm={"name": "scaffold"},
        run={"rounds": rounds, "cohort": 3, "workers": workers, "seed": seed},
        local={"epochs": 1},
    )


OTHERS: set[multiprocessing.process.BaseProcess] = set()
"""Processes of other tests, which are there before one of these begins."""


@pytest.fixture(autouse=True)
def _others() -> None:
    OTHERS.clear()
    OTHERS.update(multiprocessing.active_children())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> fedopt.History:
    return fedopt.run(small(), tmp_path_factory.mktemp("stepping") / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_all_rounds_end_as_run_does(whole: fedopt.History, tmp_path: Path, workers: int) -> None:
    weights: list[str] = []
    steps = fedopt.rounds(small(workers=workers), tmp_path / "run")
    for number, (record, model) in enumerate(steps, 1):
        assert record.round == number
        assert record.test_accuracy == whole.records[number - 1].test_accuracy
        assert not model.training
        weights.append(fingerprint(model.state_dict()))
        for parameter in model.parameters():
            parameter.detach().zero_()  # a copy: the run does not notice
    assert len(weights) == 4
    assert weights[-1] == steps.history.summary.weights_sha256 == whole.summary.weights_sha256
    assert steps.history.finished
    assert (steps.directory / "summary.json").exists()
    assert next(steps, None) is None
    assert steps.history.summary.rounds == 4
    assert set(multiprocessing.active_children()) <= OTHERS


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_left_is_saved_and_may_go_on(whole: fedopt.History, tmp_path: Path, workers: int) -> None:
    ended: list[bool] = []

    class Watcher:
        def ended(self) -> None:
            ended.append(True)

    with fedopt.rounds(small(workers=workers), tmp_path / "run", [Watcher()]) as steps:
        for record, _ in steps:
            if record.round == 2:
                break
        assert steps.history.summary.rounds == 2
    assert ended == [True]
    assert not steps.history.finished
    assert fingerprint(steps.history.weights) == fedopt.run(small(2), tmp_path / "two").summary.weights_sha256
    assert set(multiprocessing.active_children()) <= OTHERS
    assert next(steps, None) is None
    assert fedopt.resume(steps.directory).summary.weights_sha256 == whole.summary.weights_sha256


def test_a_run_that_is_forgotten_is_saved_too(whole: fedopt.History, tmp_path: Path) -> None:
    record, _ = next(fedopt.rounds(small(), tmp_path / "run"))
    gc.collect()
    assert record.round == 1
    assert fedopt.resume(tmp_path / "run").summary.weights_sha256 == whole.summary.weights_sha256


def test_two_runs_side_by_side_do_not_disturb_each_other(whole: fedopt.History, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with fedopt.rounds(small(), tmp_path / "one") as one, fedopt.rounds(small(3, seed=1), tmp_path / "two") as two:
            for _ in zip(two, one, strict=False):
                assert torch.get_num_threads() == 2
                torch.rand(3)
            rest = [record.round for record, _ in one]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert rest == [4]
    assert one.history.summary.weights_sha256 == whole.summary.weights_sha256
    alone = fedopt.run(small(3, seed=1), tmp_path / "alone")
    assert two.history.summary.weights_sha256 == alone.summary.weights_sha256


def test_observers_may_end_it_and_mistakes_come_before_the_first_round(tmp_path: Path) -> None:
    def second(record: RoundRecord) -> None:
        if record.round == 2:
            raise fedopt.StopRun

    assert [record.round for record, _ in fedopt.rounds(small(), tmp_path / "run", [second])] == [1, 2]
    with pytest.raises(InvalidExperiment, match="holds a run already"):
        fedopt.rounds(small(), tmp_path / "run")
    with pytest.raises(InvalidExperiment, match="must take"):
        fedopt.rounds(small(), tmp_path / "other", [lambda: None])
    wild = fedopt.rounds(small().replace(local={"lr": 1e6, "epochs": 3}), tmp_path / "wild")
    with pytest.raises(RunStopped, match="the model of the round before is kept"):
        list(wild)
