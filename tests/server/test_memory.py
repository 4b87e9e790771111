"""The server's memory is a small multiple of the model, whatever the cohort; models of every size travel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, Processes

PARAMETERS = 60 * 16384 + 16384 + 16384 * 10 + 10
MODEL_MIB = 4 * PARAMETERS / 2**20


def memory_mib(pid: int, which: str) -> float:
    found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def peak_of_a_round(processes: Processes, cohort: int) -> float:
    """MiB that the server's peak lies above what it held when the clients were there."""
    address = processes.address
    run = processes.folder / str(cohort)
    server = processes.server(
        *("--clients", str(cohort), "--out", run, "--set", "data.name=synthetic", "--set", "data.partition=iid"),
        *("--set", "model.hidden=[16384]", "--set", "run.rounds=2", "--set", "run.participation=1.0"),
        *("--set", "data.min_samples=1", "--set", "run.deadline=400.0"),
        *("--set", "metrics.drift_every=0", "--set", "metrics.clients_every=0"),  # the swarm only sends updates
    )
    server.wait_for("listening on")
    swarm = subprocess.Popen([sys.executable, "-m", "tests.swarm", address, str(cohort)], cwd=ROOT)
    try:
        server.wait_for(" connected with", times=cohort)
        before = memory_mib(server.pid, "VmRSS")
        server.wait_for("round 2/2")
        peak = memory_mib(server.pid, "VmHWM") - before
        assert swarm.wait(60) == 0
        assert server.wait() == 0
    finally:
        swarm.kill()
    return peak


@pytest.mark.slow
@pytest.mark.deployment
def test_memory_does_not_grow_with_the_cohort(processes: Processes) -> None:
    peaks = {cohort: peak_of_a_round(processes, cohort) for cohort in (5, 50, 200)}
    for cohort, peak in peaks.items():
        print(
            f"cohort {cohort}: {peak:.0f} MiB above rest, {peak / MODEL_MIB:.1f} times the model of {MODEL_MIB:.1f} MiB"
        )
    assert peaks[200] < 200 * MODEL_MIB / 2, "far from holding every reply"
    assert peaks[200] < 1.5 * peaks[50], "four times the cohort, about the same memory"


@pytest.mark.deployment
@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param(3, id="1 kB", marks=pytest.mark.slow),
        pytest.param(20_000, id="6 MB, in pieces"),
        pytest.param(1_760_000, id="500 MB", marks=pytest.mark.slow),
    ],
)
def test_models_of_every_size_travel(hidden: int, processes: Processes) -> None:
    run = processes.folder / "run"
    server = processes.server(
        *("--clients", "1", "--out", run, "--set", "data.name=synthetic", "--set", "local.steps=1"),
        *("--set", f"model.hidden=[{hidden}]", "--set", "run.rounds=1", "--set", "run.participation=1.0"),
        *("--set", "data.partition=iid", "--set", "local.batch_size=2"),
        *("--set", "metrics.drift_every=0"),
    )
    client = processes.client(0)
    assert server.wait() == 0, server.output
    assert client.wait() == 0, client.output
    record = json.loads((run / "metrics.jsonl").read_text())
    vector = 4 * (60 * hidden + hidden + 10 * hidden + 10)
    for travelled in (record["bytes_down"], record["bytes_up"]):
        assert vector < travelled < 1.01 * vector + 10_000
    print(f"{vector / 1e6:g} MB: a round in {record['seconds']:.1f} s")
