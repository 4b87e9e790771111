"""Replies whose records, fields or arrays are not what was asked for, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict

from tests.server.hostile.cases import (
    NASTY_TEXTS,
    Case,
    array_of,
    bound,
    content,
    file_of,
    npy,
    setting,
    with_fields,
)


def field_cases() -> Iterator[Case]:
    wrong: dict[str, object] = {
        "a string": "7",
        "bytes": b"7",
        "true": True,
        "a list": [1],
        "an empty list": [],
        "strings": ["a"],
        "-1": -1,
        "2^62": 2**62,
        "2^63 - 1": 2**63 - 1,
        "-2^63": -(2**63),
        "2^64 - 1": 2**64 - 1,
        "nan": math.nan,
        "inf": math.inf,
        "-inf": -math.inf,
        "1e308": 1e308,
        "-1e308": -1e308,
    }
    for name in ("round", "client", "samples", "steps", "loss"):
        yield Case(f"field {name} missing", with_fields(bound(lambda f, name: f.pop(name), name)))
        for label, value in wrong.items():
            yield Case(f"field {name} is {label}", with_fields(setting(name, value)))
    for name, value in (("round", 0), ("round", 2), ("client", 0), ("client", 3), ("samples", 0), ("samples", 11)):
        yield Case(f"field {name} is {value}", with_fields(setting(name, value)))
    for name, value in (("steps", 0), ("steps", 1000), ("samples", 7.0), ("steps", 1.0), ("loss", 1), ("loss", 1e30)):
        yield Case(f"field {name} is {value!r}", with_fields(setting(name, value)))
    for number, text in enumerate(NASTY_TEXTS):
        yield Case(f"reports a number of an unknown name, text {number}", with_fields(setting(f"number.{text}", 0.0)))
        yield Case(f"a text for the loss, text {number}", with_fields(setting("loss", text)))


def array_cases() -> Iterator[Case]:
    for kind in (
        "f2",
        "f4",
        ">f8",
        "i1",
        "i2",
        "i4",
        "i8",
        "u1",
        "u8",
        "c8",
        "c16",
        "b1",
        "U4",
        "S4",
        "M8[s]",
        "m8[s]",
    ):
        yield Case(f"of type {kind}", array_of(bound(lambda x, kind: Array(np.zeros(x.shape, kind)), kind)))
        yield Case(
            f"declared right, of type {kind}",
            file_of(bound(lambda x, kind: npy(np.zeros(x.shape, kind)), kind)),
        )
    shapes: list[Callable[[int], tuple[int, ...]]] = [
        *(lambda p: (), lambda p: (1,), lambda p: (0,), lambda p: (p - 1,), lambda p: (p + 1,), lambda p: (p, 1)),
        *(lambda p: (1, p), lambda p: (2, p), lambda p: (0, p), lambda p: (1,) * 20),
    ]
    for number, shape in enumerate(shapes):
        yield Case(f"shape {number}", array_of(bound(lambda x, shape: Array(np.zeros(shape(len(x)))), shape)))
        yield Case(
            f"declared right, shape {number}",
            file_of(bound(lambda x, shape: npy(np.zeros(shape(len(x)))), shape)),
        )
    for value in (math.nan, math.inf, -math.inf, 1e300, -1e300, 2.0**32, -(2.0**32), 1e6, 1e9):
        yield Case(f"all entries {value}", array_of(bound(lambda x, value: Array(np.full_like(x, value)), value)))
        if abs(value) != 1e6:
            for place in (0, -1):
                yield Case(f"entry {place} is {value}", array_of(_placing(place, value)))
    yield Case("a million times itself", array_of(lambda x: Array(1e6 * x)))


def _placing(place: int, value: float) -> Callable[[np.ndarray], Array]:
    def make(x: np.ndarray) -> Array:
        changed = x.copy()
        changed[place] = value
        return Array(changed)

    return make


def record_cases() -> Iterator[Case]:
    yield Case("no records", lambda f, x: RecordDict())
    yield Case("no vectors", lambda f, x: RecordDict({"update": ConfigRecord(f)}))
    yield Case("no update", lambda f, x: RecordDict({"vectors": ArrayRecord({"dx": Array(x)})}))
    yield Case("empty vectors", lambda f, x: content(f))
    yield Case("empty update", lambda f, x: content({}, dx=Array(x)))
    yield Case(
        "records of other kinds",
        lambda f, x: RecordDict({"update": MetricRecord({"a": 1}), "vectors": ConfigRecord(f)}),
    )
    yield Case(
        "records exchanged",
        lambda f, x: RecordDict({"vectors": ConfigRecord(f), "update": ArrayRecord({"dx": Array(x)})}),
    )
    for number, text in enumerate([*NASTY_TEXTS, "dy", "DX", "dx ", "up.dx", "x", "gradient"]):
        yield Case(
            f"a vector of another name, text {number}", bound(lambda f, x, text: content(f, **{text: Array(x)}), text)
        )
        yield Case(
            f"a vector more, text {number}", bound(lambda f, x, text: content(f, dx=Array(x), **{text: Array(x)}), text)
        )
    for count in (65, 1000):
        yield Case(
            f"{count} vectors", bound(lambda f, x, n: content(f, **{f"v{i}": Array(x) for i in range(n)}), count)
        )
    for kind in ("", "pickle", "numpy", "torch.Tensor", "x" * 1000):
        yield Case(
            f"stype {kind[:10]!r}", array_of(bound(lambda x, kind: Array(str(x.dtype), x.shape, kind, npy(x)), kind))
        )
    for kind in ("float32", "object", "", "f8", "<f8", "x" * 1000):
        yield Case(
            f"declared {kind[:10]!r}",
            array_of(bound(lambda x, kind: Array(kind, x.shape, "numpy.ndarray", npy(x)), kind)),
        )
    for shape in ((), (1,), (-1,), (10**12,), (2, 2), (1,) * 1000):
        yield Case(
            f"declared {str(shape)[:20]}",
            array_of(bound(lambda x, s: Array(str(x.dtype), s, "numpy.ndarray", npy(x)), shape)),
        )
    yield Case("a field more", with_fields(setting("extra", 1)), harmless=True)
    yield Case("version 2.0", file_of(lambda x: npy(x, (2, 0))), harmless=True)
    yield Case("version 3.0", file_of(lambda x: npy(x, (3, 0))), harmless=True)


def error_cases() -> Iterator[Case]:
    for number, text in enumerate(NASTY_TEXTS):
        yield Case(f"an error, text {number}", bound(lambda f, x, text: Error(2, text), text))
    for code in (-(2**63), -1, 0, 7, 999, 2**63 - 1):
        yield Case(f"an error of code {code}", bound(lambda f, x, code: Error(code, "odd"), code))
