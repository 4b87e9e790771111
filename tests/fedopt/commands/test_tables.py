"""Tables at 80 columns: required columns are printed, others are left out whole and named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fedopt.commands.tables import Column, fit
from tests.commands import FEDOPT, environment, fedopt


@pytest.mark.parametrize(
    ("width", "fitting_titles", "left_out"),
    [
        (40, ["axis", "final", "best", "time"], []),
        (23, ["axis", "final", "best", "time"], []),
        (22, ["axis", "final", "best"], ["time"]),
        (16, ["axis", "final"], ["best", "time"]),
        (3, ["axis", "final"], ["best", "time"]),
    ],
)
def test_columns_go_from_the_end_but_for_those_that_tell_rows_apart(
    width: int, fitting_titles: list[str], left_out: list[str]
) -> None:
    columns = [
        Column("axis", ["a", "b"], is_required=True, is_figure=False),
        Column("final", ["1", "2"], is_required=True),
        Column("best", ["1", "2"]),
        Column("time", ["1", "23"]),
    ]
    fitting, gone = fit(columns, width)
    assert ([column.title for column in fitting], gone) == (fitting_titles, left_out)


STUDY = """
seeds = 2
[base.model]
name = "logistic"
[base.run]
rounds = 1
target_accuracy = 0.9
[grid]
"algorithm.name" = ["fedavg", "scaffold"]
"local.optimizer" = ["sgd", "adam"]
"data.partition" = [{ label = "a rather long label for it", "data.partition" = "iid" }]
"local.lr" = [0.01, 0.1]
"""


def at_80_columns(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [*FEDOPT, *arguments],
        cwd=cwd,
        env={**environment(), "COLUMNS": "80", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_a_study_s_table_fits_80_columns(tmp_path: Path) -> None:
    (tmp_path / "q.toml").write_text(STUDY)
    output = at_80_columns("study", "q.toml", "--out", "s", cwd=tmp_path).splitlines()
    head = next(number for number, line in enumerate(output) if line.startswith("algorithm"))
    assert output[head].split("  ")[0] == "algorithm"
    assert "final accuracy, %" in output[head]
    assert "lr" in output[head]
    rows = {tuple(line.split()[:2]) for line in output[head + 1 : head + 9]}
    assert rows == {(name, optimizer) for name in ("fedavg", "scaffold") for optimizer in ("sgd", "adam")}
    assert max(map(len, output[head : head + 9])) <= 80
    assert output[head + 9].startswith("columns that do not fit: ")
    assert output[head + 9].endswith("seconds per run; see summary.md")


def test_a_partition_s_table_fits_80_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40_000) % 40
    x = rng.standard_normal((40_000, 2))
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
    asked = ("partition", "--set", "data.name=npz", "--set", "data.path=own.npz", "--set", "data.partition=iid")
    head, *rows = at_80_columns(*asked, "--set", "data.clients=2", cwd=tmp_path).splitlines()
    assert head.split()[:2] == ["client", "0"]
    assert head.split()[-3:] == ["size", "entropy", "distance"]
    assert len(head) <= 80
    assert rows[0].split()[0] == "0"
    assert rows[1].split()[0] == "1"
    whole = fedopt(*asked, "--set", "data.clients=2", cwd=tmp_path).stdout
    assert "+28 classes" in whole
    assert "+28 classes" not in head
    assert " classes" in head
