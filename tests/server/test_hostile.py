"""A client that sends what it should not: it is left out, with the reason, and the others' model is as without it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import Array

import fedopt
from clients.deployed.connection import Connection, ConnectionLost, Credentials
from fedopt.round.federation import Score
from fedopt.wire import EVALUATE, FAREWELL, HELLO, Greeting, score_fields
from tests.processes import Processes

pytestmark = pytest.mark.deployment

Reply = Callable[[dict[str, object], np.ndarray], RecordDict]
ROUNDS = 12


def content(update: dict[str, object], **vectors: Array) -> RecordDict:
    return RecordDict({"update": ConfigRecord(update), "vectors": ArrayRecord(vectors)})  # type: ignore[arg-type]


def garbage(x: np.ndarray) -> Array:
    return Array(dtype="float64", shape=x.shape, stype="numpy.ndarray", data=b"\x93NUMPY nonsense")


def pickled(x: np.ndarray) -> Array:
    """What np.load refuses without allow_pickle."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue())


NASTY: list[tuple[str, Reply]] = [
    ("dx is not finite", lambda u, x: content(u, dx=Array(np.full_like(x, np.nan)))),
    ("dx is not finite", lambda u, x: content(u, dx=Array(np.full_like(x, np.inf)))),
    ("dx has an entry of 1e+300", lambda u, x: content(u, dx=Array(np.full_like(x, 1e300)))),
    ("dx is float64 (1,), the model", lambda u, x: content(u, dx=Array(np.ones(1)))),
    ("dx is float32", lambda u, x: content(u, dx=Array(x.astype(np.float32)))),
    ("it brings ['dy'] where ['dx'] belong", lambda u, x: content(u, dy=Array(x))),
    ("its vectors are not plain arrays", lambda u, x: content(u, dx=garbage(x))),
    ("dx is object (1,), the model float64", lambda u, x: content(u, dx=pickled(x))),
    ("it lacks its update or its vectors", lambda u, x: RecordDict()),
    ("it says it is client 0", lambda u, x: content({**u, "client": 0}, dx=Array(x))),
    ("it reports 1000000 samples", lambda u, x: content({**u, "samples": 1_000_000}, dx=Array(x))),
    ("its 'steps' is 'many'", lambda u, x: content({**u, "steps": "many"}, dx=Array(x))),
]
assert len(NASTY) == ROUNDS


def be_nasty(address: str, samples: int) -> None:
    connection = Connection(address, Credentials(None, None))
    connection.join()
    while True:
        message = connection.receive()
        if message is None:
            continue
        if message.metadata.message_type == HELLO:
            reply = RecordDict({"greeting": ConfigRecord(dict(Greeting(2, samples).fields()))})
        elif message.metadata.message_type == FAREWELL:
            connection.send(Message(RecordDict(), reply_to=message), 0.0)
            connection.close()
            return
        elif message.metadata.message_type == EVALUATE:
            reply = RecordDict({"score": ConfigRecord(dict(score_fields(Score(2, samples, 0.0, accuracy=7.0))))})
        else:
            order = message.content.config_records["order"]
            x = message.content.array_records["vectors"]["x"].numpy()
            number = order["round"]
            assert isinstance(number, int)
            update: dict[str, object] = {"round": number, "client": 2, "samples": samples, "steps": 3, "loss": 1.0}
            reply = NASTY[number - 1][1](update, x)
        connection.send(Message(reply, reply_to=message), 0.0)


def test_what_a_broken_client_sends_never_touches_the_model(processes: Processes) -> None:
    keys: dict[str, dict[str, object]] = {
        "data": {"name": "synthetic", "partition": "iid", "clients": 3},
        "local": {"steps": 3},
        "run": {"rounds": ROUNDS, "participation": 1.0, "dtype": "float64", "seed": 1},
        "metrics": {"drift_every": 0, "clients_every": 4},
    }
    run = processes.folder / "run"
    settings = [f"{section}.{key}={value}" for section, given in keys.items() for key, value in given.items()]
    server = processes.server("--out", run, *(word for text in settings for word in ("--set", text)))
    server.wait_for("listening on")
    group = processes.local_clients(run, 2)
    samples = 140
    nasty = threading.Thread(target=be_nasty, args=(processes.address, samples), daemon=True)
    nasty.start()
    assert server.wait() == 0, server.output
    assert group.wait() == 0
    nasty.join(10)
    assert not nasty.is_alive()

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for (expected, _), line in zip(NASTY, lines, strict=True):
        (reason,) = line["left_out"].values()
        assert list(line["left_out"]) == ["2"]
        assert f"its update was refused: {expected}" in reason
    measured = [line["clients"]["accuracy"] for line in lines if line["clients"]]
    assert len(measured) == 4  # rounds 1, 4, 8 and 12
    assert all(accuracies[2] is None and None not in accuracies[:2] for accuracies in measured)
    assert "client 2's score was refused: it scores" in server.output
    assert fedopt.Experiment(**keys).data.clients == 3
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]


class Impostor(Connection):
    """Signs with a key of its own, and claims to be the node of another's."""

    def claim(self, public: bytes) -> None:
        self._public, self._registers = public, False

    @property
    def public(self) -> bytes:
        return self._public


def test_a_public_key_is_no_proof(processes: Processes) -> None:
    server = processes.server("--out", processes.folder / "run", "--set", "data.name=synthetic", "--clients", "2")
    server.wait_for("listening on")
    honest, thief = (Impostor(processes.address, Credentials(None, None)) for _ in range(2))
    honest.join()
    thief.claim(honest.public)
    with pytest.raises(ConnectionLost, match="it is signed with another key than the one it claims"):
        thief.join()
    assert "it is signed with another key than the one it claims" in server.output
    honest.close()
    thief.close()
