"""Hellos and orders that a server should never send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app.message import Array

from clients.deployed.bounds import MOST_CLIENTS
from fedopt.experiment.experiment import Experiment
from fedopt.wire import Hello

SMALL: dict[str, dict[str, Any]] = {
    "data": {"name": "synthetic", "partition": "iid", "clients": 2},
    "model": {"name": "logistic"},
    "algorithm": {"name": "scaffold"},
    "local": {"steps": 2},
    "run": {"dtype": "float64"},
}
SHAPE, CLASSES, PARAMETERS = (60,), tuple("0123456789"), 610

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
    "model": ("name", "hidden", "freeze"),
    "algorithm": ("name", "server_lr", "weighting", "variant"),
    "local": ("optimizer", "lr", "momentum", "batch_size", "epochs", "steps", "rho", "p", "clip", "eps", "betas"),
    "run": ("dtype", "backend", "products", "seed", "rounds", "cohort", "participation", "min_replies"),
    "metrics": ("drift", "drift_every", "nonsense"),
    "unknown": ("key",),
}


def evil_hellos(victim: Path) -> Iterator[tuple[str, Fields]]:
    """Name and fields of each; none can be taken part in, but for those whose names say so."""
    for name, value in {"path": str(victim / "x"), "download": True}.items():
        for source in ("mnist", "cifar10", "svhn", "emnist", "folder", "npz", "table", "leaf", "shakespeare"):
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
        for partition in ("iid", "dirichlet", "shards", "classes", "quantity", "power-law", "similarity", "natural"):
            yield f"{str(count)[:12]} {partition} clients", experiment(data={"clients": count, "partition": partition})
        yield f"hidden {str(count)[:12]}", experiment(model={"name": "mlp", "hidden": [count, count]})
        for key in ("layers", "hidden", "embedding"):
            yield f"gru {key} {str(count)[:12]}", experiment(model={"name": "gru", key: count})
        yield f"crop {str(count)[:12]}", experiment(local={"crop": count})
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
