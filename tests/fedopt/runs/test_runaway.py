"""The warning of a run whose clients run away: before it ends, with the client's number, and not without cause."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import fedopt
from fedopt import Experiment
from fedopt.drift.records import Drift
from fedopt.errors import Diverged
from fedopt.runs.history import RoundRecord
from fedopt.runs.round_log import RoundLog


def record(round_: int, mean_norm: float, longest: float, client: int = 7) -> RoundRecord:
    drift = Drift(
        norm=1.0,
        mean_norm=mean_norm,
        dispersion=0.0,
        ratio=1.0,
        cosine=None,
        longest=longest,
        longest_client=client,
    )
    return RoundRecord(
        round=round_,
        cohort=[client],
        samples=1,
        local_steps=1,
        train_loss=1.0,
        test_loss=None,
        test_accuracy=None,
        update_norm=1.0,
        bytes_down=1,
        bytes_up=1,
        drift=drift,
        seconds=1.0,
    )


def warnings_of(lengths: list[tuple[float, float]], caplog: pytest.LogCaptureFixture) -> list[str]:
    log = RoundLog()
    with caplog.at_level(logging.WARNING, "fedopt"):
        for round_, (mean_norm, longest) in enumerate(lengths, 1):
            log.round_done(record(round_, mean_norm, longest))
    return [message.split(";")[0] for message in caplog.messages]


def test_an_update_of_four_times_the_usual_length_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    found = warnings_of([(1.0, 1.5), (3.0, 3.5), (5.0, 8.0)], caplog)
    assert found == ["round 3: client 7 may be running away: its update is 8 long, and 2 is usual"]


@pytest.mark.parametrize("lengths", [[(1.0, 90.0), (1.0, 90.0)], [(2.0, 2.0)] * 2 + [(2.0, 7.9)], [(0.0, 0.0)] * 4])
def test_there_is_no_warning_without_a_cause(
    lengths: list[tuple[float, float]], caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings_of(lengths, caplog) == []


def test_the_warning_comes_again_where_an_update_is_twice_as_long(caplog: pytest.LogCaptureFixture) -> None:
    found = warnings_of([(1.0, 1.0)] * 3 + [(1.0, 5.0), (1.0, 9.9), (1.0, 10.0)], caplog)
    assert [message.split(":")[0] for message in found] == ["round 4", "round 6"]


def test_a_run_that_diverges_says_so_rounds_before_and_names_the_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = Experiment(
        algorithm={"name": "scaffold", "variant": "full-gradient"},
        data={"clients": 20, "partition": "dirichlet-balanced", "alpha": 0.1},
        model={"name": "mlp", "hidden": [30, 30]},
        local={"lr": 0.05, "momentum": 0.9, "steps": 100},
        metrics={"drift_every": 100, "clients_every": 0},
        run={"rounds": 30, "participation": 0.2, "seed": 1, "eval_every": 100, "workers": 1},
    )
    records: list[RoundRecord] = []
    with caplog.at_level(logging.WARNING, "fedopt"), pytest.raises(Diverged):
        fedopt.run(experiment, tmp_path / "run", observers=[RoundLog(), records.append])
    first = next(message for message in caplog.messages if "may be running away" in message)
    warned = int(first.split()[1].rstrip(":"))
    assert warned <= len(records) - 2
    drift = records[warned - 1].drift
    assert drift is not None
    assert f"client {drift.longest_client} may" in first
    assert drift.longest_client in records[warned - 1].cohort
