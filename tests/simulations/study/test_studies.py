"""Studies as they are run: real worker processes, and what happens to them."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import fedopt
from fedopt.data.dataset import Dataset, hold_out
from fedopt.data.loading import load_dataset
from fedopt.data.settings import DataSettings
from simulations.study.workers import Reporter, Task, carry_out
from tests.commands import fedopt as command
from tests.commands import start

SMALL = """
title = "A small question"
seeds = 2

[base.data]
clients = 6

[base.model]
name = "logistic"

[base.local]
epochs = 1

[base.run]
rounds = 3
target_accuracy = 0.1

[grid]
"algorithm.name" = ["fedavg", "scaffold"]
"data.alpha" = [0.1, 1.0]
"""


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "results.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_study_ends_in_tables_whose_figures_are_those_of_its_runs(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    done = command("study", "small.toml", "--out", "s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "s"
    rows = table(out)
    assert len(rows) == 8
    columns = {"algorithm.name", "data.alpha", "seed", "test_accuracy", "best_accuracy", "rounds_to_target", "seconds"}
    assert columns | {"bytes_up", "bytes_down", "drift.ratio.last", "drift.ratio.mean", "run"} <= rows[0].keys()
    for row in rows:
        run = out / row["run"]
        summary = json.loads((run / "summary.json").read_text())
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert float(row["test_accuracy"]) == summary["final"]["test_accuracy"]
        assert int(row["rounds_to_target"]) == summary["rounds_to_target"]
        assert float(row["drift.ratio.mean"]) == pytest.approx(np.mean([r["drift"]["ratio"] for r in records]))
        assert float(row["drift.ratio.last"]) == records[-1]["drift"]["ratio"]
        assert int(row["bytes_up"]) == sum(r["bytes_up"] for r in records)
        assert summary["seed"] == int(row["seed"])

    output = (out / "summary.md").read_text()
    for alpha in ("0.1", "1"):
        cells = [
            100
            * np.array(
                [float(r["test_accuracy"]) for r in rows if (r["algorithm.name"], r["data.alpha"]) == (name, alpha)]
            )
            for name in ("fedavg", "scaffold")
        ]
        figures = [f"{cell.mean():.2f} ± {cell.std(ddof=1):.2f}" for cell in cells]
        assert f"**{figures[int(cells[1].mean() > cells[0].mean())]}**" in output
        assert all(figure in output for figure in figures)
        gains = cells[1] - cells[0]
        assert f"| {gains.mean():+.2f} ± {gains.std(ddof=1):.2f} | {gains[0]:+.2f}, {gains[1]:+.2f} |" in output
    assert "fedavg-alpha0.1-seed{0,1}" in output
    assert "scaffold - fedavg, seed by seed" in done.stdout
    assert (out / "report.html").read_text().startswith("<!doctype html>")

    run = out / "scaffold-alpha1-seed1"  # is the run that fedopt run makes
    alone = fedopt.run(fedopt.Experiment(**toml_of(run)), tmp_path / "alone")
    assert alone.summary.weights_sha256 == json.loads((run / "summary.json").read_text())["weights_sha256"]


@pytest.mark.deployment
def test_finished_runs_are_skipped_and_more_rounds_are_added(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    command("study", "small.toml", "--out", "s", cwd=tmp_path)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "s").glob("*/summary.json")}
    again = command("study", "small.toml", "--out", "s", cwd=tmp_path)
    assert again.returncode == 0
    assert "8 of 8 were done before" in again.stderr
    assert {file: file.stat().st_mtime_ns for file in before} == before

    longer = command("study", "small.toml", "--out", "s", "--set", "run.rounds=5", cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert {row["rounds"] for row in table(tmp_path / "s")} == {"5"}
    files = {file: file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()}
    other = command("study", "small.toml", "--out", "s", "--set", "local.lr=0.3", cwd=tmp_path)
    assert other.returncode == 2
    assert "is a run of another study: local.lr was" in other.stderr
    assert {file: file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()} == files


@pytest.mark.deployment
def test_a_crash_in_one_run_does_not_stop_the_others_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One combination's model kills its process, another's raises; a third diverges."""
    (tmp_path / "mood.txt").write_text("die")
    monkeypatch.setenv("MOOD", str(tmp_path / "mood.txt"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # where tests.moody is
    (tmp_path / "moods.toml").write_text("""
seeds = 1
compare = "model"
[base.data]
clients = 4
[base.run]
rounds = 2
[grid]
model = [
    { label = "well", "model.name" = "logistic" },
    { label = "moody", "model.name" = "tests.moody:build" },
    { label = "wild", "model.name" = "logistic", "local.lr" = 1e30 },
    { label = "fine", "model.name" = "mlp" },
]
""")
    done = command("study", "moods.toml", "--out", "s", "--jobs", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert "moody-seed0: its process ended with status 3" in done.stderr
    assert "1 run diverged: wild-seed0" in done.stderr
    assert "Traceback" not in done.stderr
    rows = {row["run"]: row["status"] for row in table(tmp_path / "s")}
    assert rows == {
        "well-seed0": "finished",
        "moody-seed0": "failed",
        "wild-seed0": "diverged",
        "fine-seed0": "finished",
    }
    assert "(1 of 1 diverged)" in (tmp_path / "s" / "summary.md").read_text()

    (tmp_path / "mood.txt").write_text("raise")
    again = command("study", "moods.toml", "--out", "s", cwd=tmp_path)  # failed before: reported, and not repeated
    assert again.returncode == 1
    assert "its process ended with status 3" in again.stderr
    retried = command("study", "moods.toml", "--out", "s", "--retry", cwd=tmp_path)
    assert "3 of 4 were done before, 1 of them failed" in retried.stderr
    assert "moody-seed0: model.name: tests.moody:build cannot take samples" in retried.stderr
    assert "this client is in a mood" in (tmp_path / "s" / "moody-seed0" / "failure.txt").read_text()
    (tmp_path / "mood.txt").unlink()
    mended = command("study", "moods.toml", "--out", "s", "--retry", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert not (tmp_path / "s" / "moody-seed0" / "failure.txt").exists()


def test_a_fault_of_ours_is_told_in_full_and_is_one_run_s_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Line:
        def send(self, report: object) -> None: ...

    def summarize(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("fedopt.runs.runner.summarize", summarize)
    experiment = fedopt.Experiment(model={"name": "logistic"}, run={"rounds": 2})
    ended = carry_out(Task("run", tmp_path / "run", experiment, resume=False), Reporter(Line()))  # type: ignore[arg-type]
    assert ended.failure is not None
    assert ended.failure.startswith(f"it failed with ZeroDivisionError: a fault ({__file__}, line ")


LONG = ["--set", "run.rounds=4000", "--set", "run.checkpoint_every=5", "--seeds", "2"]


@pytest.mark.deployment
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_study_that_is_stopped_goes_on_where_it_was(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    stopped = start(["study", "small.toml", "--out", "s", *LONG], cwd=tmp_path)
    out = tmp_path / "s"
    until = time.monotonic() + 100
    while max(saved_rounds(out).values(), default=0) < 5 and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(stopped.pid, number)
    _, output = stopped.communicate(timeout=60)
    if number == signal.SIGINT:
        assert stopped.returncode == 130
        assert "continue with: fedopt study small.toml --out s" in output
        assert "Traceback" not in output
    time.sleep(2.0)  # workers notice that nobody listens, and save
    saved = saved_rounds(out)
    assert max(saved.values()) >= 5

    rounds = max(saved.values()) + 3
    shorter = ["--set", f"run.rounds={rounds}", "--set", "run.checkpoint_every=5", "--seeds", "2"]
    done = command("study", "small.toml", "--out", "s", *shorter, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resumed = out / next(iter(saved))
    whole = fedopt.run(fedopt.Experiment(**toml_of(resumed)), tmp_path / "whole")
    assert json.loads((resumed / "summary.json").read_text())["weights_sha256"] == whole.summary.weights_sha256


def test_ctrl_c_before_the_study_is_read_says_so_in_a_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow.toml")
    process = start(["study", "slow.toml"], cwd=tmp_path)
    with open(tmp_path / "slow.toml", "w"):  # waits until the command reads
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=60)
    assert (process.returncode, output.split("\n")) == (130, ["fedopt: stopped", ""])


def test_ctrl_c_while_workers_start_says_how_to_go_on_in_a_line(tmp_path: Path) -> None:
    """A terminal sends the signal to all processes, to those that are still importing torch, too."""
    process = start(["study", "--out", "a study"], cwd=tmp_path, own_group=True)
    until = time.monotonic() + 100
    while not (tmp_path / "a study" / "study.toml").exists() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == "fedopt: stopped; continue with: fedopt study --out 'a study', and the same options\n"


def saved_rounds(out: Path) -> dict[str, int]:
    """The round of each run's checkpoint, by the run's name."""
    manifests = sorted(out.glob("*/checkpoint/checkpoint.json"))
    return {manifest.parents[1].name: json.loads(manifest.read_text())["round"] for manifest in manifests}


def toml_of(run: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads((run / "experiment.toml").read_text())


def test_a_search_chooses_what_does_best_on_held_out_data(tmp_path: Path) -> None:
    """Of three learning rates one learns nothing and one is far too large."""
    (tmp_path / "search.toml").write_text(
        SMALL.replace('"data.alpha" = [0.1, 1.0]', "")
        + '[search]\nrounds = 5\ngrid = { "local.lr" = [1e-9, 0.1, 1e30] }\n'
    )
    done = command("study", "search.toml", "--out", "s", "--seeds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "s")
    assert [row["local.lr (searched)"] for row in rows] == ["0.1", "0.1"]
    for row in rows:
        experiment = toml_of(tmp_path / "s" / row["run"])
        assert experiment["local"]["lr"] == 0.1
        assert experiment["data"]["validation"] == 0
    tried = sorted(run.name for run in (tmp_path / "s" / "search").iterdir())
    assert len(tried) == 6
    assert not any("search" in row["run"] for row in rows)


def test_held_out_data_are_training_data_and_are_not_trained_on() -> None:
    digits = load_dataset(DataSettings(), 0)
    held = load_dataset(DataSettings(validation=0.1), 0)
    assert len(held.y_test) == round(0.1 * len(digits.y_train))
    before, trained, tested = (
        _images(x, torch.from_numpy(np.unique(of.x_train)))
        for x, of in ((digits.x_train, digits), (held.x_train, held), (held.x_test, held))
    )
    assert trained + tested == before  # each image as often
    assert tested - before == Counter()
    assert not torch.equal(held.x_test, load_dataset(DataSettings(validation=0.1), 1).x_test)


def _images(x: torch.Tensor, levels: torch.Tensor) -> Counter[bytes]:
    """How often each image comes, whatever its pixels' 17 levels are scaled to."""
    assert len(levels) == 17
    return Counter(image.numpy().tobytes() for image in torch.searchsorted(levels, x))


def test_held_out_data_keep_their_clients() -> None:
    x = torch.arange(20.0)[:, None]
    natural = (np.arange(12), np.arange(12, 20))
    data = Dataset(x, torch.zeros(20, dtype=torch.int64), x[:0], torch.zeros(0, dtype=torch.int64), 1, (), natural)
    held = hold_out(data, 0.25, seed=0)
    assert held.natural_clients is not None
    assert held.test_clients is not None
    for client, own in enumerate(natural):
        kept = held.x_train[held.natural_clients[client]].flatten().tolist()
        out = held.x_test[held.test_clients == client].flatten().tolist()
        assert sorted(kept + out) == own.tolist()


def test_a_directory_that_is_no_study_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("dear")
    done = command("study", "--out", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not empty, and holds no study" in done.stderr
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_dry_run_lists_the_runs_and_starts_none(tmp_path: Path) -> None:
    done = command("study", "course-central", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 36
    assert "batch_size16-lr10-sgd-seed0" in done.stdout
    assert "36 runs, 180 rounds" in done.stderr
    assert list(tmp_path.iterdir()) == []
