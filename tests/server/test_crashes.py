"""Servers and clients that are killed, hang or misbehave: real processes, real kill -9."""

from __future__ import annotations

import json
import threading
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import Array

import fedopt
from clients.deployed.connection import Connection, Credentials, MessageWithdrawn
from fedopt.experiment.file import to_toml
from fedopt.wire import FAREWELL, HELLO, Greeting
from tests.processes import Processes, alive, descendants

pytestmark = pytest.mark.deployment


PACE = {"PACE": "0.03"}
"""A round then takes a tenth of a second and the processor is free for what starts meanwhile."""

ALLOWED = ("--allow-code", "tests.moody:build")


def write_experiment(folder: Path, **changes: dict[str, object]) -> Path:
    sections: dict[str, dict[str, object]] = {
        "data": {"clients": 3, "name": "synthetic", "partition": "iid"},
        "model": {"name": "tests.moody:build"},
        "algorithm": {"name": "scaffold"},
        "local": {"steps": 3},
        "run": {
            "rounds": 12,
            "participation": 1.0,
            "dtype": "float64",
            "checkpoint_every": 3,
            "patience": 60.0,
            "backend": "each",  # a forward pass that does more than compute must be run each time
        },
    }
    for section, keys in changes.items():
        sections[section] = {**sections.get(section, {}), **keys}
    file = folder / "experiment.toml"
    file.write_text(to_toml(fedopt.Experiment(**sections)))
    return file


def records(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights_of(run: Path) -> str:
    sha: str = json.loads((run / "summary.json").read_text())["weights_sha256"]
    return sha


def control_error(processes: Processes, run: Path) -> float:
    """|c - sum p_i c_i|, from the server's checkpoint and the clients' own files."""
    checkpoint = json.loads((run / "checkpoint" / "checkpoint.json").read_text())
    known = json.loads((run / "checkpoint" / "clients" / "federation.json").read_text())
    server = safetensors.torch.load_file(run / "checkpoint" / f"server-round-{checkpoint['round']:06d}.safetensors")
    total = sum(known["samples"].values())
    mean = np.zeros_like(server["c"].numpy())
    for client, round_ in checkpoint["accepted"].items():
        file = (
            processes.folder
            / "state"
            / known["federation"]
            / f"client-{int(client):06d}-round-{round_:06d}.safetensors"
        )
        mean += known["samples"][client] / total * safetensors.torch.load_file(file)["c_i"].numpy()
    return float(np.abs(server["c"].numpy() - mean).max())


@pytest.mark.parametrize(
    "moment", [*(pytest.param(when, marks=pytest.mark.slow) for when in ("at once", "late")), "in a round"]
)
def test_a_server_that_is_killed_resumes_to_the_same_weights(moment: str, processes: Processes) -> None:
    file, run = write_experiment(processes.folder), processes.folder / "run"
    expected = fedopt.run(fedopt.Experiment(**_sections(file)), processes.folder / "whole").summary.weights_sha256
    server = processes.server(file, "--out", run)
    clients = processes.local_clients(run, 3, PACE)
    if moment == "at once":
        server.wait_for("waiting for clients")
    else:
        server.wait_for(f"round {2 if moment == 'in a round' else 8}/12")
        time.sleep(0.05)  # into the round after it
    server.kill()
    assert not (run / "summary.json").exists()

    again = processes.server("--resume", run)
    assert again.wait() == 0, again.output
    assert weights_of(run) == expected
    assert clients.wait() == 0, clients.output
    if moment != "at once":
        assert clients.output.count("lost the server") == 3
    assert control_error(processes, run) < 1e-12


@pytest.mark.slow  # a minute, and more beside other tests: the client starts while others keep both cores busy
def test_a_client_that_is_killed_is_left_out_and_comes_back_with_its_state(processes: Processes) -> None:
    file, run = write_experiment(processes.folder, run={"rounds": 1000}), processes.folder / "run"
    server = processes.server(file, "--out", run)
    clients = processes.local_clients(run, 3, PACE)
    clients.wait_for("client 2: round 3:")
    clients.kill(2)
    server.wait_for("client 2 disconnected")
    server.wait_for("without client 2")
    back = processes.client(2, *ALLOWED, env=PACE)
    back.wait_for("loss", times=4)
    server.interrupt()
    assert server.wait() == 130, server.output

    left_out = [record["left_out"] for record in records(run)]
    assert all(reasons.keys() <= {"2"} for reasons in left_out)  # type: ignore[attr-defined]
    assert {"2": "its connection was lost"} in left_out or {"2": "it is not connected"} in left_out
    assert left_out[0] == left_out[-1] == {}, "it was there before and after"
    assert control_error(processes, run) < 1e-12


@pytest.mark.slow
def test_clients_killed_one_after_the_other_leave_the_controls_whole(processes: Processes) -> None:
    file, run = write_experiment(processes.folder, run={"rounds": 1000, "min_replies": 1}), processes.folder / "run"
    server = processes.server(file, "--out", run)
    clients = processes.local_clients(run, 3, PACE)
    back = []
    for number in (1, 2):
        clients.wait_for(f"client {number}: round {4 * number}:")
        clients.kill(number)
        back.append(processes.client(number, *ALLOWED, env=PACE))
    for process in back:
        process.wait_for("loss", times=3)
    server.interrupt()
    assert server.wait() == 130, server.output
    assert control_error(processes, run) < 1e-12


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        pytest.param("raise", "it failed: RuntimeError: this client is in a mood", marks=pytest.mark.slow),
        pytest.param("leave", "it failed: SystemExit: 3", marks=pytest.mark.slow),
        pytest.param("die", "its connection was lost", marks=pytest.mark.slow),  # like kill -9, which is tested above
        ("hang", "it did not answer within 2 s (run.deadline)"),
    ],
)
def test_a_client_that_misbehaves_is_left_out_and_said_so(mood: str, reason: str, processes: Processes) -> None:
    file = write_experiment(processes.folder, run={"rounds": 5, "deadline": 2.0})
    run, moods = processes.folder / "run", processes.folder / "mood"
    server = processes.server(file, "--out", run)
    clients = processes.local_clients(run, 2)
    moody = processes.client(2, *ALLOWED, env={"MOOD": str(moods), "PACE": "0.5"})
    server.wait_for("client 2 connected with")
    moods.write_text(mood)
    assert server.wait() == 0, server.output
    assert clients.wait() == 0, clients.output

    lines = records(run)
    assert len(lines) == 5
    assert reason in [line["left_out"].get("2") for line in lines]  # type: ignore[attr-defined]
    assert all(line["left_out"].keys() <= {"2"} for line in lines)  # type: ignore[attr-defined]
    assert f"without client 2: {reason}" in server.output
    if mood in ("raise", "leave"):
        assert moody.wait() == 0, "it went on, and was sent home with the others"


def test_too_few_clients_are_named_and_waited_for_but_not_for_ever(processes: Processes) -> None:
    file = write_experiment(processes.folder, run={"patience": 4.0})
    server = processes.server(file, "--out", processes.folder / "run")
    assert server.wait() == 1
    assert "waiting for clients 0, 1, 2, at most 4 s" in server.output
    assert "did not come within 4 s (run.patience); nothing was trained" in server.output.replace("\n", " ")


def test_a_round_with_too_few_updates_waits_for_who_was_lost(processes: Processes) -> None:
    """Longer than the deadline, within the patience."""
    file = write_experiment(
        processes.folder, data={"clients": 2}, run={"min_replies": 2, "rounds": 10, "deadline": 2.0}
    )
    run = processes.folder / "run"
    expected = fedopt.run(fedopt.Experiment(**_sections(file)), processes.folder / "whole").summary.weights_sha256
    server = processes.server(file, "--out", run)
    clients = processes.local_clients(run, 2, PACE)
    clients.wait_for("client 1: round 3:")
    clients.kill(1)
    server.wait_for("too few")
    time.sleep(2.5)
    processes.client(1, *ALLOWED)
    assert server.wait() == 0, server.output
    assert [line["left_out"] for line in records(run)] == [{}] * 10
    assert weights_of(run) == expected


@pytest.mark.slow
def test_patience_in_a_round_ends_with_who_is_missing_and_how_to_resume(processes: Processes) -> None:
    keys: dict[str, object] = {"min_replies": 2, "rounds": 1000, "deadline": 1.0, "patience": 25.0}
    file, run = write_experiment(processes.folder, data={"clients": 2}, run=keys), processes.folder / "run"
    server = processes.server(file, "--out", run)
    clients = processes.local_clients(run, 2, PACE)
    clients.wait_for("client 1: round 3:")
    clients.kill(1)
    assert server.wait() == 1, server.output
    told = " ".join(server.output.split())
    assert "client 1 did not" in told
    assert "within 25 s" in told
    assert f"continue with: fedopt server --listen {processes.address} --resume {run}" in told
    assert f"--resume {run}" in (run / "server.log").read_text().splitlines()[-1]


@pytest.mark.slow
def test_a_silent_client_costs_two_deadlines_and_is_back_when_it_is_heard_of(processes: Processes) -> None:
    """Client 2 answers round 1, then nothing, until it is asked who it is and takes its time for that."""
    settings: dict[str, object] = {"rounds": 40, "deadline": 2.0}
    unmeasured: dict[str, object] = {"clients_every": 0, "drift_every": 0}
    file = write_experiment(processes.folder, algorithm={"name": "fedavg"}, run=settings, metrics=unmeasured)
    run = processes.folder / "run"
    server = processes.server(file, "--out", run)
    server.wait_for("listening on")
    clients = processes.local_clients(run, 2, PACE)
    asleep = threading.Event()

    def answer(message: Message) -> RecordDict | None:
        if message.metadata.message_type == HELLO:
            if asleep.is_set():
                asleep.clear()
                while len(records(run)) < 10:
                    time.sleep(0.05)
            return RecordDict({"greeting": ConfigRecord(dict(Greeting(2, 140).fields()))})
        if message.metadata.message_type == FAREWELL:
            return RecordDict()
        order = message.content.config_records["order"]
        if order["round"] == 2:
            asleep.set()
        if asleep.is_set():
            return None
        x = message.content.array_records["vectors"]["x"].numpy()
        update = {"round": order["round"], "client": 2, "samples": 140, "steps": 3, "loss": 1.0}
        return RecordDict({"update": ConfigRecord(update), "vectors": ArrayRecord({"dx": Array(np.zeros_like(x))})})

    scripted = threading.Thread(target=play, args=(processes.address, answer), daemon=True)
    scripted.start()
    assert server.wait() == 0, server.output
    assert clients.wait() == 0, clients.output

    lines = records(run)
    late = "it did not answer within 2 s (run.deadline)"
    silent = "it did not answer in rounds 2 and 3, and gets no order until it responds"
    reasons = [line["left_out"].get("2", "") for line in lines]  # type: ignore[attr-defined]
    assert reasons[:4] == ["", late, late, silent]
    assert reasons[-1] == "", "it answered, and takes part again"
    assert set(reasons[3:]) <= {silent, ""}
    assert max(float(str(line["seconds"])) for line in lines[3:]) < 1.5, "no round waited for it"
    assert f"round 2: without client 2: {late}" in (run / "server.log").read_text()


def play(address: str, answer: Callable[[Message], RecordDict | None]) -> None:
    """A client that answers as told, and not at all where that is None."""
    connection = Connection(address, Credentials(None, None))
    connection.join()
    while True:
        message = connection.receive()
        reply = None if message is None else answer(message)
        if message is None or reply is None:
            continue
        with suppress(MessageWithdrawn):
            connection.send(Message(reply, reply_to=message), 0.0)
        if message.metadata.message_type == FAREWELL:
            return


@pytest.mark.slow
def test_ctrl_c_saves_and_leaves_no_process(processes: Processes) -> None:
    file, run = write_experiment(processes.folder, run={"rounds": 500}), processes.folder / "run"
    federation = processes.start("federation", file, "--out", run)
    federation.wait_for("round 25/500")
    below = descendants(federation.pid)
    assert len(below) >= 4, "a local_clients and three clients"
    federation.interrupt()
    assert federation.wait() == 130
    assert f"continue with: fedopt federation --resume {run}" in federation.output.replace("\n", " ")
    assert not _still_alive(below)

    rounds = len(records(run))
    again = processes.start("federation", "--resume", run, "--set", f"run.rounds={rounds + 3}")
    assert again.wait() == 0, again.output
    assert [record["round"] for record in records(run)] == list(range(1, rounds + 4))


def test_a_federation_that_is_killed_takes_its_clients_along(processes: Processes) -> None:
    federation = processes.start(
        "federation", write_experiment(processes.folder, run={"rounds": 500}), "--out", processes.folder / "run"
    )
    federation.wait_for("round 25/500")
    below = descendants(federation.pid)
    federation.kill()
    assert not _still_alive(below)


def _still_alive(pids: set[int]) -> set[int]:
    end = time.monotonic() + 10
    while (left := alive(pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def _sections(file: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads(file.read_text())
