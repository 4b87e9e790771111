"""The progress of a run, at any width and in any encoding."""

from __future__ import annotations

import io
import os
import re
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from fedopt.runs.history import RoundRecord
from fedopt.runs.progress import LiveProgress, PlainProgress
from tests.commands import FEDOPT, environment


def record(round_: int) -> RoundRecord:
    return RoundRecord(
        round=round_,
        cohort=[0, 1],
        samples=20,
        local_steps=10,
        train_loss=0.5,
        test_loss=1.5,
        test_accuracy=0.9375,
        update_norm=1.0,
        bytes_down=8,
        bytes_up=8,
        seconds=0.001,
    )


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (120, "test accuracy 93.75%, training loss 0.5000, 2,000 clients/s"),
        (80, "test accuracy 93.75%, training loss 0.5000"),
        (60, "test accuracy 93.75%"),
        (40, ""),
        (28, ""),
    ],
)
def test_a_live_line_keeps_round_and_time_left(width: int, text: str) -> None:
    screen = io.StringIO()
    live = LiveProgress(Console(file=screen, force_terminal=True, width=width, color_system=None))
    live.started(Path("run"), 0, 100)
    live.round_done(record(57))
    live.ended()
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").splitlines()
    (last,) = {line for line in lines if line.startswith("round  57/100")}
    assert re.fullmatch(rf"round  57/100 [━╸╺ ]+ {re.escape(text)} [-0-9:]+ left", last.rstrip())
    assert len(last) <= width
    assert not [line for line in lines if line and not line.startswith("round")]  # nothing is wrapped


def test_a_plain_line_names_its_figures() -> None:
    log = io.StringIO()
    plain = PlainProgress(Console(file=log, width=40))
    plain.started(Path("run"), 0, 10)
    plain.round_done(record(10))
    assert log.getvalue() == "round 10/10  test accuracy 93.75%, training loss 0.5000, 2,000 clients/s, 0 s left\n"


def test_a_terminal_without_these_characters_gets_them_spelled_out(tmp_path: Path) -> None:
    for arguments in (
        ("study", "--seeds", "2", "--set", "run.rounds=1", "--out", "s"),
        ("partition", "--set", "run.tägs=±1"),
    ):
        done = subprocess.run(
            [*FEDOPT, *arguments],
            cwd=tmp_path,
            env={**environment(), "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
            capture_output=True,
            timeout=120,
            check=False,
        )
        output = (done.stdout + done.stderr).decode("ascii")
        assert done.returncode == (2 if arguments[0] == "partition" else 0), output
        assert "Error" not in output
        if arguments[0] == "study":
            assert " +/- " in output
