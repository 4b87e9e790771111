"""A server that is not what it should be: what it sends creates nothing on a client's disk, calls no code, takes no
memory worth mention, and is refused in a sentence or ignored."""

from __future__ import annotations

import multiprocessing
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message import Array
from flwr.supercore.task_identity import TaskIdentity

from clients.app import app
from clients.deployed.connection import Credentials, Rejected
from clients.deployed.node import Node
from fedopt.wire import HELLO, TRAIN, Farewell
from server.links import Link
from server.superlink import SuperLink
from tests.server.malformed_orders import Fields, evil_hellos, evil_orders, experiment, hello

MIB_OF_A_PROCESS = 700
"""More than a client may grow by over all of this."""


def in_another_process(what: Callable[..., Any], *arguments: Any) -> Any:
    """The outcome of `what`, from a process whose memory and disk can be looked at."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send_outcome, args=(theirs, what, arguments))
    process.start()
    assert ours.poll(500), "it hangs"
    outcome = ours.recv()
    process.join()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _send_outcome(pipe: Any, what: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        pipe.send(what(*arguments))
    except BaseException as error:
        pipe.send(AssertionError(f"{type(error).__name__}: {error}"))


def reply_to(content: RecordDict, kind: str, context: Context) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # the server's; a Message names them
    message = Message(content, 1, kind)
    return app(message, context)


def new_context(folder: Path) -> Context:
    config: dict[str, Any] = {
        "partition-id": 0,
        "state": str(folder / "state"),
        "device": "cpu",
        "resident": True,
        "set": f"data.path={folder / 'data'}",
    }
    return Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})


def try_hellos(folder: Path, step: int) -> dict[str, str]:
    """What became of each: the refusal, "accepted", or what was raised. MemoryError where it takes too much."""
    found: dict[str, str] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2**31
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))  # so that the code before the mend cannot take the machine
    for name, fields in list(evil_hellos(folder / "victim"))[::step]:
        start = time.monotonic()
        try:
            record = ConfigRecord(fields)
        except (TypeError, ValueError, OverflowError):
            continue  # cannot be sent
        try:
            reply = reply_to(RecordDict({"hello": record}), HELLO, new_context(folder))
            refusal = str(reply.content.config_records["greeting"]["refusal"])
            found[name] = refusal or "accepted"
            refusal.encode()
            if not refusal.isprintable() or len(refusal) > 500:
                found[name] = f"BAD: unfit to print: {refusal[:200]!r}"
        except Exception as error:
            known = type(error).__name__ in ("Malformed", "InvalidExperiment")
            found[name] = f"{'' if known else 'BAD: '}{type(error).__name__}: {str(error)[:200]}"
        if time.monotonic() - start > 20:
            found[name] = "BAD: it took long"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    found["memory"] = f"{'BAD: ' if grown > MIB_OF_A_PROCESS else ''}{grown:.0f} MiB"
    return found


def try_orders(folder: Path) -> dict[str, str]:
    context, found = new_context(folder), {}
    accepted = reply_to(RecordDict({"hello": ConfigRecord(hello())}), HELLO, context)
    assert not accepted.content.config_records["greeting"]["refusal"]
    for name, fields, vectors in evil_orders():
        content = RecordDict({"order": ConfigRecord(fields), "vectors": ArrayRecord(vectors)})
        try:
            reply_to(content, TRAIN, context)
            found[name] = "BAD: carried out"
        except Exception as error:
            known = type(error).__name__ in ("Malformed", "InvalidExperiment", "BrokenRun")
            found[name] = f"{'' if known else 'BAD: '}{type(error).__name__}: {str(error)[:200]}"
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 13])
def test_hellos_create_nothing_call_nothing_and_are_bounded(step: int, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    found = in_another_process(try_hellos, tmp_path, step)
    bad = {name: outcome for name, outcome in found.items() if outcome.startswith("BAD")}
    print(f"{len(found) - 1} hellos, {len(bad)} bad; grown by {found['memory']}")
    assert not bad, f"{len(bad)} of {len(found)}"
    assert len(found) > 800 / step
    assert files(tmp_path) == [tmp_path / "data"], "nothing was created"


def test_paths_and_code_of_a_server_are_never_used(tmp_path: Path) -> None:
    secret = tmp_path / "secret.npz"
    np.savez(secret, x_train=np.zeros((9, 60)), y_train=np.arange(9), x_test=np.zeros((9, 60)), y_test=np.arange(9))
    context = new_context(tmp_path)

    def refusal(fields: Fields) -> str:
        reply = reply_to(RecordDict({"hello": ConfigRecord(fields)}), HELLO, context)
        return str(reply.content.config_records["greeting"]["refusal"])

    assert "there is no file" in refusal(experiment(data={"name": "npz", "path": str(secret)}))
    download = refusal(experiment(data={"name": "mnist", "download": True, "path": str(tmp_path / "made")}))
    assert f"was looked for at {tmp_path / 'data'}" in download
    assert not (tmp_path / "made").exists()
    moody = experiment(model={"name": "tests.moody:build"})
    assert "if you trust it, start the client with --allow-code tests.moody:build" in refusal(moody)
    context.node_config["allow-code"] = "tests.other:build tests.moody:build"
    assert refusal(moody) == ""


NAMES_CODE: dict[str, Callable[[str], Any]] = {
    "data.name": lambda code: {"data": {"name": code}},
    "data.partition": lambda code: {"data": {"partition": code}},
    "model.name": lambda code: {"model": {"name": code}},
    "algorithm.name": lambda code: {"algorithm": {"name": code}},
    "local.optimizer": lambda code: {"local": {"optimizer": code}},
    "local.base": lambda code: {"local": {"optimizer": "sam", "base": code}},
    "local.base, unread": lambda code: {"local": {"optimizer": "sgd", "base": code}},
    "local.schedule": lambda code: {"local": {"schedule": code}},
    "server.schedule": lambda code: {"server": {"schedule": code}},
    "channel.stages": lambda code: {"channel": {"stages": [{"name": code}]}},
    "channel.stages, bare": lambda code: {"channel": {"stages": [code]}},
    "gathering.name": lambda code: {"gathering": {"name": code}},
}


@pytest.mark.parametrize("key", NAMES_CODE)
@pytest.mark.parametrize("allowed", [False, True])
def test_code_is_imported_only_where_it_is_allowed_whatever_key_names_it(
    key: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module writes a file when it is imported. It holds no member of any family, so that no hello is taken."""
    trace, module = tmp_path / "imported", f"writes_a_file_{list(NAMES_CODE).index(key)}_{allowed}"
    (tmp_path / f"{module}.py").write_text(f"open({str(trace)!r}, 'w').close()\nThing = object\n")
    monkeypatch.syspath_prepend(tmp_path)
    context = new_context(tmp_path)
    if allowed:
        context.node_config["allow-code"] = f"{module}:Thing"
    fields = experiment(**NAMES_CODE[key](f"{module}:Thing"))
    reply = reply_to(RecordDict({"hello": ConfigRecord(fields)}), HELLO, context)
    refusal = str(reply.content.config_records["greeting"]["refusal"])
    assert refusal
    assert trace.exists() == allowed
    assert (f"start the client with --allow-code {module}:Thing" in refusal) != allowed


def test_orders_that_are_none_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    found = in_another_process(try_orders, tmp_path)
    bad = {name: outcome for name, outcome in found.items() if outcome.startswith("BAD")}
    print(f"{len(found)} orders, {len(bad)} bad")
    assert not bad, f"{len(bad)} of {len(found)}"
    assert len(found) > 50
    assert not (tmp_path / "state").exists()


# Over the wire


def serve(link: Link, messages: list[tuple[str, RecordDict]], over: threading.Event) -> list[Message]:
    """Sends the first node that comes these messages, one by one; its answers."""
    answers: list[Message] = []
    end = time.monotonic() + 60
    while not link.nodes() and time.monotonic() < end:
        link.wait(0.1)
    (node,) = link.nodes()
    for kind, content in messages:
        (message_id,) = link.push([Message(content, node, kind)])
        before = len(answers)
        while len(answers) == before and not over.is_set() and time.monotonic() < end:
            link.wait(0.1)
            answers += link.pull([message_id])
    return answers


@pytest.mark.deployment
def test_a_client_of_a_hostile_server_answers_ignores_or_ends_in_a_sentence(tmp_path: Path) -> None:
    """A real server, a real client; what the app refuses is above."""
    said: list[str] = []
    ends: list[BaseException | None] = []
    over = threading.Event()
    farewell = RecordDict({"farewell": ConfigRecord(dict(Farewell("\x1b[2Jgo\nhome", True).fields()))})
    messages = [
        (HELLO, RecordDict({"hello": ConfigRecord(experiment(data={"name": "mnist", "download": True}))})),
        (HELLO, RecordDict()),
        (HELLO, RecordDict({"hello": ConfigRecord({"protocol": 1})})),
        (TRAIN, RecordDict()),
        ("query.nonsense", RecordDict()),
        ("query.farewell", RecordDict()),
        ("query.farewell", farewell),
    ]
    config = new_context(tmp_path).node_config
    with SuperLink("127.0.0.1:0", None, None, said.append, 1024) as superlink:
        node = Node(f"127.0.0.1:{superlink.port}", Credentials(None, None), dict(config), said.append)

        def live() -> None:
            try:
                node.run()
                ends.append(None)
            except BaseException as error:
                ends.append(error)
            over.set()

        client = threading.Thread(target=live, daemon=True)
        client.start()
        answers = serve(superlink.link, messages, over)
        client.join(20)
        assert not client.is_alive()
    (end,) = ends
    assert isinstance(end, Rejected)
    assert str(end) == "\\x1b[2Jgo\\nhome"
    errors = [answer.error for answer in answers if answer.has_error()]
    assert len(answers) >= 6
    assert all(isinstance(error, Error) and "Malformed" not in str(error.reason) for error in errors)
    assert all(line.isprintable() for line in said)
    assert not (tmp_path / "state").exists()


@pytest.mark.deployment
def test_a_message_that_is_too_large_ends_a_client_before_it_is_read(tmp_path: Path) -> None:
    ends: list[BaseException] = []
    over = threading.Event()
    big = RecordDict({"vectors": ArrayRecord({str(k): Array(np.full(2**19, float(k))) for k in range(8)})})
    with SuperLink("127.0.0.1:0", None, None, lambda line: None, 2**20) as superlink:
        config = dict(new_context(tmp_path).node_config)
        node = Node(f"127.0.0.1:{superlink.port}", Credentials(None, None), config, lambda line: None)

        def live() -> None:
            try:
                node.run()
            except BaseException as error:
                ends.append(error)
            over.set()

        client = threading.Thread(target=live, daemon=True)
        client.start()
        serve(superlink.link, [(HELLO, big)], over)
        client.join(20)
    assert "the server sends more than 16 MiB" in str(ends[0])
