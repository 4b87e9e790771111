"""A hostile node against a real server over gRPC: the server goes on, and the honest clients' rounds are right."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch

from clients.deployed.connection import Credentials, open_channel
from fedopt.experiment.experiment import Experiment
from fedopt.runs.setup import set_up
from fedopt.text import LONGEST
from fedopt.vectors.layout import Layout
from tests.processes import Processes
from tests.server.hostile.attacker import Attack, Attacker
from tests.server.hostile.attacks import ATTACKS, SAMPLE, attack
from tests.server.test_memory import memory_mib
from tests.swarm import play

pytestmark = pytest.mark.deployment


@pytest.mark.parametrize(
    "attacks", [pytest.param(SAMPLE, id="a sample"), pytest.param(ATTACKS, id="all", marks=pytest.mark.slow)]
)
def test_attacks_end_no_round(attacks: list[Attack], processes: Processes) -> None:
    rounds = len(attacks) + 2
    keys: dict[str, dict[str, object]] = {
        "data": {"name": "synthetic", "partition": "iid", "clients": 3},
        "run": {"rounds": rounds, "participation": 1.0, "dtype": "float64", "deadline": 5.0, "min_replies": 2},
        "metrics": {"drift_every": 0, "clients_every": 0},
    }
    run = processes.folder / "run"
    settings = [f"{section}.{key}={value}" for section, given in keys.items() for key, value in given.items()]
    server = processes.server("--out", run, *(word for text in settings for word in ("--set", text)))
    server.wait_for("listening on")
    channel = open_channel(processes.address, Credentials(None, None))
    honest = [
        threading.Thread(target=play, args=(processes.address, client, channel), daemon=True) for client in (0, 1)
    ]
    done: list[str] = []
    attacker = Attacker(processes.address)
    hostile = threading.Thread(target=attack, args=(attacker, attacks, done), daemon=True)
    for thread in (*honest, hostile):
        thread.start()
    server.wait_for(" connected with", times=3)
    before = memory_mib(server.pid, "VmRSS")
    grown, end = 0.0, time.monotonic() + 300
    while server.popen.poll() is None and time.monotonic() < end:
        with suppress(OSError, AssertionError):  # it ends in this moment
            grown = memory_mib(server.pid, "VmHWM") - before
        time.sleep(0.1)
    assert server.wait() == 0, server.output
    for thread in honest:
        thread.join(10)
        assert not thread.is_alive()

    assert done == [chosen.__name__ for chosen in attacks]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [list(line["left_out"]) for line in lines] == [["2"]] * rounds, "the attacker alone is left out"
    for line in lines:
        (reason,) = line["left_out"].values()
        assert len(reason) <= LONGEST
        assert reason.isprintable()
    # In each round clients 0 and 1 of one sample each move every entry by 0.001 and 0.002.
    initial = initial_weights(Experiment(**keys))
    final = safetensors.torch.load_file(run / "model.safetensors")
    for name, weights in initial.items():
        assert torch.allclose(final[name], weights + 0.0015 * rounds, rtol=0, atol=1e-9)
    print(f"{len(attacks)} attacks: the server's memory grew by {grown:.0f} MiB")
    assert grown < 300, "what was sent in vain is many times that"
    assert "Traceback" not in server.output
    assert not forged((run / "server.log").read_text())


def initial_weights(experiment: Experiment) -> dict[str, torch.Tensor]:
    module = set_up(experiment).problem.task.module
    layout = Layout.of(module)
    return layout.split(layout.flatten(module))


def forged(log: str) -> list[str]:
    """Lines that do not begin with a date, or hold what a terminal would obey."""
    return [line for line in log.splitlines() if not line.startswith("20") or not line.isprintable()]


def test_a_log_line_is_one_line(tmp_path: Path) -> None:
    from logging import getLogger

    from fedopt.logs import LOGGERS, log_to

    before = {name: (list(getLogger(name).handlers), getLogger(name).propagate) for name in LOGGERS}
    try:
        log_to(tmp_path / "log")
        getLogger("fedopt").info("%s", "a\nb \x1b[31m")
        try:
            raise ValueError("x\ny")
        except ValueError:
            getLogger("grpc").exception("of a stranger %s", "z" * 10_000)
        lines = (tmp_path / "log").read_text().splitlines()
    finally:
        for name, (handlers, propagate) in before.items():
            getLogger(name).handlers, getLogger(name).propagate = handlers, propagate
    assert len(lines) == 2
    assert lines[0].endswith(r"INFO a\nb \x1b[31m")
    assert lines[1].endswith("(ValueError)")
    assert len(lines[1]) < 2 * LONGEST
