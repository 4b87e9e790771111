"""A server that is not what it should be: what it sends creates nothing on a client's disk, calls no code, takes no
memory worth mention, and is refused in a sentence or ignored."""

from __future__ import annotations

import json
import multiprocessing
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message import Array
from flwr.supercore.task_identity import TaskIdentity

from clients.app import app
from clients.deployed.bounds import MOST_CLIENTS
from clients.deployed.connection import Credentials, Rejected
from clients.deployed.node import Node
from fedopt.experiment.experiment import Experiment
from fedopt.wire import HELLO, TRAIN, Farewell, Hello
from server.links import Link
from server.superlink import SuperLink

SMALL: dict[str, dict[str, Any]] = {
    "data": {"name": "synthetic", "partition": "iid", "clients": 2},
    "model": {"name": "logistic"},
    "algorithm": {"name": "scaffold"},
    "local": {"steps": 2},
    "run": {"dtype": "float64"},
}
SHAPE, CLASSES, PARAMETERS = (60,), tuple("0123456789"), 610
MIB_OF_A_PROCESS = 700
"""More than a client may grow by over all of this."""

Fields = dict[str, Any]


def hello(**changes: Any) -> Fields:
    """The fields of a hello of the small experiment, changed."""
    return {**Hello.of("abc", Experiment(**SMALL), SHAPE, CLASSES).fields(), **changes}


def experiment(**sections: dict[str, Any]) -> Fields:
    """A hello whose experiment has these keys, unchecked, as a stranger may write them."""
    given = json.loads(str(hello()["experiment"]))
    for section, keys in sections.items():
        given[section] = {**given.get(section, {}), **keys}
    return hello(experiment=json.dumps(given))


HUGE = [10**6, 10**9, 2**31, 2**63, 10**30, 10**400]
ODD: list[Any] = [
    -1,
    0,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    True,
    None,
    "",
    "x" * 300,
    "\ud800",
    "\x1b[2J",
    [],
    [[]],
    {},
]
KEYS = {
    "data": ("name", "clients", "partition", "alpha", "shards", "classes", "min_samples", "validation", "image_size"),
    "model": ("name", "hidden"),
    "algorithm": ("name", "server_lr", "weighting", "variant"),
    "local": ("optimizer", "lr", "momentum", "batch_size", "epochs", "steps", "rho", "p", "clip", "eps", "betas"),
    "run": ("dtype", "backend", "products", "seed", "rounds", "cohort", "participation", "min_replies"),
    "metrics": ("drift", "drift_every", "nonsense"),
    "unknown": ("key",),
}


def evil_hellos(victim: Path) -> Iterator[tuple[str, Fields]]:
    """Name and fields of each; none can be taken part in, but for those whose names say so."""
    for name, value in {"path": str(victim / "x"), "download": True}.items():
        for source in ("mnist", "cifar10", "svhn", "emnist", "folder", "npz", "table", "leaf"):
            yield f"data.{name} of {source}", experiment(data={"name": source, name: value})
    for path in ("/etc/passwd", "/etc", "~", "../..", "\x00", "/dev/zero", "x" * 10_000):
        yield f"data.path {path[:12]!r}", experiment(data={"name": "npz", "path": path})
        yield f"folder {path[:12]!r}", experiment(data={"name": "folder", "path": path})
    for place in ("/etc", "~", "..", "./x", "nobody/nothing", "a/../b", "csv"):
        yield f"data.name hf:{place}", experiment(data={"name": f"hf:{place}", "download": True})
    yield "data.test", experiment(data={"name": "table", "test": str(victim / "x"), "validation": 0.5})
    for code in (
        "os:system",
        "antigravity:fly",
        "tests.moody:build",
        ":",
        "a:b:c",
        "/etc/passwd:x",
        "subprocess:Popen",
    ):
        yield f"code {code}", experiment(model={"name": code, "args": str(victim / "code")})
    for section, keys in KEYS.items():
        for key in keys:
            for value in (*HUGE, *ODD):
                yield f"{section}.{key} = {str(value)[:20]!r}", experiment(**{section: {key: value}})
    for count in HUGE:
        for partition in ("iid", "dirichlet", "shards", "classes", "quantity", "natural"):
            yield f"{str(count)[:12]} {partition} clients", experiment(data={"clients": count, "partition": partition})
        yield f"hidden {str(count)[:12]}", experiment(model={"name": "mlp", "hidden": [count, count]})
        yield f"full epochs {str(count)[:12]}", experiment(local={"steps": count, "batch_size": "full"})
        epochs = json.loads(str(experiment()["experiment"]))
        epochs["local"] = {"epochs": count}
        yield f"epochs {str(count)[:12]}", hello(experiment=json.dumps(epochs))
    yield "synthetic clients", experiment(data={"clients": MOST_CLIENTS, "partition": "natural"})
    yield "depth", experiment(model={"name": "mlp", "hidden": [1] * 10_000})
    for text in (
        "",
        "{",
        "[]",
        "null",
        "[" * 50_000,
        '{"a":' * 5_000,
        "9" * 10_000,
        '{"data": []}',
        "{}" + " " * 10**6,
    ):
        yield f"text {text[:8]}", hello(experiment=text)
    for federation in ("", "..", "../../x", "/tmp/x", "a/b", "A", "x" * 65, "\x00", str(victim / "f")):
        yield f"federation {federation[:12]!r}", hello(federation=federation)
    for shape in ([], [0], [-1], [60, -1], [2**31], [2**20, 2**20], [1] * 100, [59], [1, 60], ["60"], [60.0]):
        yield f"shape {shape}"[:40], hello(sample_shape=shape)
    for names in ([], ["0"], [""] * 10**5, ["x" * 10**4] * 10, [1, 2], ["\x1b[31m"]):
        yield f"{len(names)} names", hello(class_names=names)
    for field in ("protocol", "federation", "experiment", "sample_shape", "class_names"):
        for value in (*ODD[:6], 2**62, "", b"x", [1.0], [b"x"]):
            yield f"{field} is {value!r}"[:40], hello(**{field: value})
        yield f"no {field}", {key: value for key, value in hello().items() if key != field}


def evil_orders() -> Iterator[tuple[str, Fields, dict[str, Array]]]:
    """Name, fields and vectors of each, for client 0 of the small experiment."""
    good: Fields = {"round": 1, "client": 0, "accepted": 0, "saved": 0, "gradient": False}
    x = np.zeros(PARAMETERS)
    vectors = {"x": Array(x), "down.c": Array(x)}
    for field in good:
        for value in (-1, -(2**62), 2**62, 1.5, float("nan"), "1", b"1", [1], [True]):
            if (field, value) in (("round", 2**62), ("saved", 2**62), ("client", 0)):
                continue  # strange, but an order
            yield f"{field} = {value!r}", {**good, field: value}, vectors
        yield f"no {field}", {key: value for key, value in good.items() if key != field}, vectors
    for number in (np.nan, np.inf, -np.inf):
        for name in vectors:
            yield f"{name} {number}", good, {**vectors, name: Array(np.full(PARAMETERS, number))}
    for wrong in (x[:-1], x.astype(np.float32), x[None], np.zeros(0), x.astype(np.int64), x.astype(complex)):
        for name in vectors:
            yield f"{name} {wrong.dtype} {wrong.shape}", good, {**vectors, name: Array(wrong)}
    yield "no vectors", good, {}
    yield "no model", good, {"down.c": Array(x)}
    yield "no control", good, {"x": Array(x)}
    yield "a vector more", good, {**vectors, "down.d": Array(x)}
    yield "a vector that is none", good, {**vectors, "y": Array(x)}


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
