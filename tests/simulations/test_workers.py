"""Virtual clients in several processes: the same bits, whatever happens to the processes."""

from __future__ import annotations

import inspect
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from itertools import combinations
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fedopt
from fedopt.algorithms.fedavg import FedAvg
from fedopt.errors import InvalidExperiment, RunStopped
from fedopt.round.federation import WorkOrder
from fedopt.runs.runner import Interrupted
from fedopt.vectors.layout import Vectors
from simulations.benchmarks.choices import OPTIMIZERS
from simulations.benchmarks.engine import Bench
from simulations.lane_groups import side_by_side
from simulations.workers import shared_memory as memory
from simulations.workers.failure import Failure
from tests.fedopt.optimizers.references import scalars_in_float64
from tests.processes import descendants


def experiment(**run: Any) -> fedopt.Experiment:
    sections: dict[str, Any] = run.pop("sections", {})
    return fedopt.Experiment(
        **{
            "model": {"name": "mlp", "hidden": [16]},
            "algorithm": {"name": "scaffold"},
            "local": {"epochs": 2, "batch_size": 10, "momentum": 0.9},
            "run": {"rounds": 4, "cohort": 9, **run},
            "metrics": {"drift_every": 2, "clients_every": 2},
            **sections,
        }
    )


def records(history: fedopt.History) -> list[dict[str, Any]]:
    return [record.model_dump(exclude={"seconds"}) for record in history.records]


@pytest.mark.parametrize(
    ("algorithm", "local"),
    [
        ("fedavg", {}),
        ("scaffold", {}),
        ("scaffold", {"optimizer": "adam", "lr": 0.003}),
        ("fedavg", {"optimizer": "sam"}),
    ],
    ids=["fedavg", "scaffold", "scaffold-adam", "fedavg-sam"],
)
def test_one_two_and_four_workers_come_to_the_same_bits(tmp_path: Path, algorithm: str, local: dict[str, Any]) -> None:
    found = [
        fedopt.run(
            experiment(workers=workers, sections={"algorithm": {"name": algorithm}, "local": {"epochs": 1, **local}}),
            tmp_path / str(workers),
        )
        for workers in (1, 2, 4)
    ]
    assert len({history.summary.weights_sha256 for history in found}) == 1
    assert records(found[0]) == records(found[1]) == records(found[2])


def test_more_clients_than_lanes_and_a_resume_in_between_change_nothing(tmp_path: Path) -> None:
    whole = fedopt.run(experiment(workers=1), tmp_path / "whole")
    fedopt.run(experiment(workers=2, lanes=2, rounds=2), tmp_path / "parts")
    parts = fedopt.resume(tmp_path / "parts", ["run.rounds=4", "run.workers=3", "run.lanes=1"])
    assert parts.summary.weights_sha256 == whole.summary.weights_sha256


def test_a_worker_that_is_killed_under_way_is_replaced_and_leaves_no_trace(tmp_path: Path) -> None:
    same = experiment(workers=2, rounds=40)
    untouched = fedopt.run(same, tmp_path / "untouched")
    killed: list[int] = []
    others = descendants(os.getpid())

    class Killer:
        """Kills a worker after the 5th, the 15th and the 25th round, while the next is on its way."""

        def started(self, directory: Path, rounds_done: int, rounds: int) -> None: ...

        def round_done(self, record: Any) -> None:
            if record.round in (5, 15, 25):
                victim = min(descendants(os.getpid()) - others)
                killed.append(victim)
                threading.Timer(0.003, os.kill, (victim, signal.SIGKILL)).start()

        def ended(self) -> None: ...

    again = fedopt.run(same, tmp_path / "again", [Killer()])
    assert len(killed) == 3
    assert again.summary.weights_sha256 == untouched.summary.weights_sha256
    assert records(again) == records(untouched)


class Deadly(nn.Module):
    """Kills whoever trains it."""

    def __init__(self, home: int) -> None:
        super().__init__()
        self.layer, self.home = nn.Linear(64, 10), home

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        y: torch.Tensor = self.layer(x.flatten(1))
        return y


def deadly() -> nn.Module:
    return Deadly(os.getpid())


class Faulty(nn.Module):
    """Raises where it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.layer.weight.requires_grad and torch.is_grad_enabled() and len(x) > 2:
            raise ValueError("this model is broken")
        y: torch.Tensor = self.layer(x.flatten(1))
        return y


def faulty() -> nn.Module:
    return Faulty()


def test_a_model_that_kills_every_worker_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    broken = experiment(
        workers=2, backend="each", sections={"model": {"name": "tests.simulations.test_workers:deadly"}}
    )
    with pytest.raises(RunStopped, match=r"a worker process died 4 times over clients .*exit status -9"):
        fedopt.run(broken, tmp_path / "run")


def test_what_a_worker_raises_is_raised_here(tmp_path: Path) -> None:
    broken = experiment(workers=2, sections={"model": {"name": "tests.simulations.test_workers:faulty"}})
    with pytest.raises(RuntimeError, match="ValueError in a worker process: this model is broken"):
        fedopt.run(broken, tmp_path / "run")


class Slipped(FedAvg):
    """Looks up what `begin` did not prepare."""

    def correct(self, gradient: torch.Tensor, y: torch.Tensor, prepared: Vectors) -> torch.Tensor:
        return gradient + y - prepared["x"]


def test_a_bug_in_an_own_algorithm_is_raised_with_its_line_and_the_workers_traceback(tmp_path: Path) -> None:
    line = inspect.getsourcelines(Slipped.correct)[1] + 1
    place = re.escape(f"KeyError in a worker process: 'x' ({__file__}, line {line}, in correct)")
    with pytest.raises(RuntimeError, match=place) as raised:
        fedopt.run(experiment(workers=2, sections={"algorithm": Slipped()}), tmp_path / "run")
    shown = "".join(traceback.format_exception(raised.value))
    assert 'gradient + y - prepared["x"]' in shown
    assert "clients/lanes/steps.py" in shown


def test_a_refusal_of_fedopts_own_comes_back_from_a_worker_as_it_is() -> None:
    with pytest.raises(InvalidExperiment, match=r"^one sentence$") as raised:
        pickle.loads(pickle.dumps(Failure.of(InvalidExperiment("one sentence")))).raise_again()
    assert raised.value.__cause__ is None


def test_workers_are_gone_after_a_run(tmp_path: Path) -> None:
    before = descendants(os.getpid())
    fedopt.run(experiment(workers=3), tmp_path / "run")
    deadline = time.monotonic() + 5
    while descendants(os.getpid()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descendants(os.getpid()) <= before


@pytest.mark.timeout(60)
@pytest.mark.parametrize("moment", [pytest.param("send", marks=pytest.mark.slow), "recv"])
def test_ctrl_c_between_a_message_and_its_note_ends_the_run(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, left = os.getpid(), [5]

    def struck(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(line: Connection, *message: Any) -> Any:
            if moment == "recv":
                message = original(line)
            if os.getpid() == parent:
                left[0] -= 1
                if left[0] == 0:
                    signal.raise_signal(signal.SIGINT)
            return message if moment == "recv" else original(line, *message)

        return call

    monkeypatch.setattr(Connection, moment, struck(getattr(Connection, moment)))
    with pytest.raises(Interrupted, match="stopped after round"):
        fedopt.run(experiment(workers=2), tmp_path / "run")
    monkeypatch.undo()
    whole = fedopt.run(experiment(workers=2), tmp_path / "whole")
    assert fedopt.resume(tmp_path / "run").summary.weights_sha256 == whole.summary.weights_sha256


ABANDONED = """
import os, sys, threading, time
from pathlib import Path
import fedopt
from clients.lanes.training import LaneTrainer
from tests.simulations.test_workers import experiment

train = LaneTrainer.train

def slowly(self, broadcast, jobs):
    time.sleep(1)
    return train(self, broadcast, jobs)

LaneTrainer.train = slowly
run = Path(sys.argv[1])

def gone():
    while not (run / "metrics.jsonl").is_file() or not (run / "metrics.jsonl").read_text():
        time.sleep(0.01)
    time.sleep(0.5)  # into the next round
    os._exit(0)

threading.Thread(target=gone, daemon=True).start()
fedopt.run(experiment(workers=2, rounds=30), run)
"""


def test_workers_whose_parent_is_gone_end_without_a_word(tmp_path: Path) -> None:
    # Whoever reads what they write is told when the last of them has ended.
    done = subprocess.run(
        [sys.executable, "-c", ABANDONED, str(tmp_path / "run")], capture_output=True, text=True, timeout=60
    )
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
    assert not (tmp_path / "run" / "summary.json").exists()
    assert done.stderr == ""


@given(
    st.lists(st.integers(1, 2_000), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 5),
    st.floats(0.0, 10.0),
)
def test_everyone_trains_once_and_workers_have_like_shares(
    samples: list[int], lanes: int, workers: int, stepping: float
) -> None:
    orders = [WorkOrder(client, None) for client in range(len(samples))]
    groups = side_by_side(orders, samples, lanes, workers, stepping)
    assert sorted(order.client for group in groups for order in group) == list(range(len(samples)))
    assert all(1 <= len(group) <= lanes for group in groups)
    # No worker has the whole of the work while another could take a client of it: greedy shares differ by one client.
    if workers == 2 and len(groups) == 2:
        assert abs(loads_of(groups, samples, stepping)[0] - loads_of(groups, samples, stepping)[1]) <= (
            1 + stepping
        ) * max(samples)


def loads_of(groups: list[list[WorkOrder]], samples: list[int], stepping: float) -> list[float]:
    own = [[samples[order.client] for order in group] for group in groups]
    return [sum(group) + stepping * max(group) for group in own]


@given(st.lists(st.integers(1, 500), min_size=3, max_size=8), st.sampled_from([0.0, 0.3, 3.0]))
def test_two_shares_are_hardly_larger_than_the_best_there_are(samples: list[int], stepping: float) -> None:
    orders = [WorkOrder(client, None) for client in range(len(samples))]
    groups = side_by_side(orders, samples, len(samples), 2, stepping)
    best = min(
        max(loads_of([part, [order for order in orders if order not in part]], samples, stepping))
        for size in range(1, len(orders))
        for part in (list(chosen) for chosen in combinations(orders, size))
    )
    assert max(loads_of(groups, samples, stepping)) <= 1.25 * best  # greedy shares alone: 4/3 and more


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_what_clients_keep_may_lie_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    in_memory = fedopt.run(experiment(workers=workers), tmp_path / "memory")
    monkeypatch.setattr(memory, "MEMORY_SHARE", 0.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    on_disk = fedopt.run(experiment(workers=workers), tmp_path / "disk")
    assert on_disk.summary.weights_sha256 == in_memory.summary.weights_sha256
    assert sorted(file.name for file in tmp_path.iterdir()) == ["disk", "memory"]


def test_a_disk_that_is_too_small_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InvalidExperiment, match="set TMPDIR to a folder on a larger disk"):
        fedopt.run(experiment(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "batch", "optimizer"),
    [
        *(
            pytest.param("logistic", 64, optimizer, marks=[] if optimizer in ("sgd", "scaffold") else pytest.mark.slow)
            for optimizer in OPTIMIZERS
        ),
        *(
            pytest.param("mlp", batch, optimizer, marks=pytest.mark.slow)
            for batch in (10, 64)
            for optimizer in OPTIMIZERS
        ),
        *(pytest.param("cnn", 64, optimizer, marks=pytest.mark.slow) for optimizer in OPTIMIZERS),
        pytest.param("resnet8", 64, "sgd", marks=pytest.mark.slow),
    ],
)
def test_each_cell_of_the_benchmark_agrees_with_the_plain_loop_in_float64(
    model: str, batch: int, optimizer: str
) -> None:
    bench = Bench(model, batch, optimizer, dtype=torch.float64, workers=2)
    try:
        ours = bench.by_engine()
        with scalars_in_float64():
            plain = bench.by_plain_loop()
    finally:
        bench.close()
    divides = "adam" in optimizer or optimizer in ("adagrad", "rmsprop")  # by gradients that may be close to zero
    tolerance = 1e-10 if divides else 1e-12
    if optimizer == "rmsprop":
        tolerance = 1e-9  # its first steps are ten times as long as Adam's
    assert float((ours - plain).abs().max() / plain.abs().max()) < tolerance
