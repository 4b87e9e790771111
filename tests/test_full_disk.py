"""A disk that fills up, or a run directory that is moved, while something writes to it: real disks and processes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import FEDOPT, environment
from tests.processes import Process, Processes

FOR_EVER = ("--set", "run.rounds=100000", "--set", "run.checkpoint_every=2")
SYNTHETIC = ("--set", "data.name=synthetic", "--set", "data.partition=iid", "--set", "local.steps=2")
SMALL = ("--set", "model.name=logistic")
PATIENCE = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte; skips, visibly, where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Writes until there is no room."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as stream:
        for block in (4096, 1):
            try:
                while True:
                    stream.write(bytes(block))
            except OSError:
                continue
    return filler


def until_rounds(run: Path, rounds: int, process: Process) -> None:
    end = time.monotonic() + PATIENCE
    while rounds_of(run) < rounds:
        assert time.monotonic() < end, process.output
        assert process.popen.poll() is None, process.output
        time.sleep(0.02)


def rounds_of(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def check_sentence(said: str, *parts: str) -> None:
    """One sentence that holds these, and no traceback."""
    told = " ".join(said.split())
    for part in parts:
        assert part in told
    assert "Traceback" not in said
    assert "Logging error" not in said
    assert said.count("No space left on device") <= 2, said  # the log of a server says it for itself


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["run", pytest.param("federation", marks=pytest.mark.deployment)])
def test_a_run_whose_disk_is_full_ends_in_a_sentence_and_resumes(engine: str, disk: Path, processes: Processes) -> None:
    run = disk / "run"
    settings = () if engine == "run" else ("--clients", "2")
    process = processes.start(engine, *settings, "--out", run, *FOR_EVER, *SYNTHETIC, *SMALL)
    until_rounds(run, 5, process)
    filler = fill(disk)
    assert process.wait() == 1, process.output
    check_sentence(
        process.output,
        f"fedopt: {run} cannot be written: No space left on device; the run is saved up to round",
        f"continue with: fedopt {engine} --resume {run}",
    )
    assert not list(run.rglob("*.draft"))
    saved = json.loads((run / "checkpoint" / "checkpoint.json").read_text())["round"]
    assert f"saved up to round {saved};" in " ".join(process.output.split())

    filler.unlink()
    again = processes.start(engine, "--resume", run, "--set", f"run.rounds={saved + 3}")
    assert again.wait() == 0, again.output
    rounds = [json.loads(line)["round"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rounds == list(range(1, saved + 4))


@pytest.mark.slow
@pytest.mark.deployment
def test_a_server_whose_directory_is_moved_says_so_and_resumes_in_the_new_place(processes: Processes) -> None:
    run, moved = processes.folder / "run", processes.folder / "moved"
    server = processes.server("--clients", "2", "--out", run, *FOR_EVER, *SYNTHETIC, *SMALL)
    server.wait_for("listening on")
    clients = processes.local_clients(run, 2)
    until_rounds(run, 3, server)
    run.rename(moved)
    assert server.wait() == 1, server.output
    check_sentence(
        server.output,
        f"{run} is gone: it was moved or deleted while it was in use; the run is saved up to round",
        f"continue it in its new place with: fedopt server --listen {processes.address} --resume DIR",
    )
    assert not run.exists()
    log = (moved / "server.log").read_text()
    assert f"ERROR ended: {run} is gone" in log
    assert "Traceback" not in log

    again = processes.server("--resume", moved, "--set", f"run.rounds={rounds_of(moved) + 2}")
    assert again.wait() == 0, again.output
    assert clients.wait() == 0, clients.output


@pytest.mark.slow
@pytest.mark.deployment
def test_a_client_whose_state_disk_is_full_ends_in_a_sentence_and_comes_back(disk: Path, processes: Processes) -> None:
    run = processes.folder / "run"
    scaffold = ("--set", "algorithm.name=scaffold", "--set", "run.min_replies=1", "--set", "run.participation=1.0")
    server = processes.server("--clients", "2", "--out", run, *FOR_EVER, *SYNTHETIC, *SMALL, *scaffold)
    server.wait_for("listening on")
    other = processes.client(0)
    full = processes.client(1, "--state", disk / "state")
    server.wait_for("client 1 connected with")
    until_rounds(run, 3, server)
    filler = fill(disk)
    assert full.wait() == 1, full.output
    check_sentence(
        full.output,
        f"fedopt: client 1: {disk / 'state'}",
        "cannot be written: No space left on device; free some space, and start this client again",
    )
    reasons = [json.loads(line)["left_out"].get("1", "") for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum("No space left on device" in reason for reason in reasons) <= 1
    filler.unlink()
    back = processes.client(1, "--state", disk / "state")
    back.wait_for("loss", times=3)
    server.interrupt()
    assert server.wait() == 130
    other.kill()


@pytest.mark.slow
def test_a_study_whose_disk_is_full_ends_in_a_sentence_and_goes_on(disk: Path, processes: Processes) -> None:
    out = disk / "study"
    file = processes.folder / "study.toml"
    file.write_text(
        'seeds = 2\n[base.data]\nname = "synthetic"\n[base.model]\nname = "logistic"\n[base.local]\nsteps = 2\n'
        '[base.run]\nrounds = 100000\ncheckpoint_every = 2\n[grid]\n"local.lr" = [0.1]\n'
    )
    study = processes.start("study", file, "--out", out, "--jobs", "1")
    end = time.monotonic() + PATIENCE
    while not any(rounds_of(run) >= 3 for run in out.glob("*seed0*")):
        assert time.monotonic() < end, study.output
        time.sleep(0.02)
    filler = fill(disk)
    assert study.wait() == 1, study.output
    check_sentence(
        study.output,
        "cannot be written: No space left on device; continue with: fedopt study",
        f"--out {out}, and the same",
    )
    assert not list(out.rglob("failure.txt"))
    filler.unlink()
    (run,) = out.glob("*seed0*")
    before = rounds_of(run)
    again = processes.start("study", file, "--out", out, "--jobs", "1")
    until_rounds(run, before + 5, again)
    again.interrupt()
    assert again.wait() == 130, again.output


def test_a_file_size_limit_is_a_full_disk_too(tmp_path: Path) -> None:
    """The same without a file system of its own, where mounting is not allowed."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        [*FEDOPT, "run", "--out", "run", *FOR_EVER, *SYNTHETIC, *SMALL, "--set", "run.workers=1"],
        cwd=tmp_path,
        env=environment(),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    check_sentence(done.stderr, "run cannot be written: File too large", "continue with: fedopt run --resume run")
    assert os.path.getsize(tmp_path / "run" / "metrics.jsonl") <= 8192
