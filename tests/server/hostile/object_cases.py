"""Replies made of raw objects that Flower itself would not write."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from flwr.app import ConfigRecord
from flwr.supercore.inflatable.inflatable_object import get_object_id

from tests.server.hostile.cases import (
    Case,
    Fields,
    Objects,
    bound,
    npy,
)


def _array_object(x: np.ndarray, **changes: object) -> Objects:
    chunk = Objects("ArrayChunk", npy(x))
    about = {"dtype": str(x.dtype), "shape": list(x.shape), "stype": "numpy.ndarray", "arraychunk_ids": [0], **changes}
    return Objects("Array", json.dumps(about).encode(), (chunk,))


def _record_objects(fields: Fields, vectors: Objects, names: dict[str, Objects] | None = None) -> Objects:
    update = Objects("ConfigRecord", ConfigRecord(fields).deflate().partition(b"\x00")[2])
    parts = names or {"update": update, "vectors": vectors}
    ids = {name: get_object_id(part.deflate()) for name, part in parts.items()}
    return Objects("RecordDict", json.dumps(ids).encode(), tuple(parts.values()))


def _vectors(array: Objects, name: str = "dx") -> Objects:
    return Objects("ArrayRecord", json.dumps({name: get_object_id(array.deflate())}).encode(), (array,))


def object_cases() -> Iterator[Case]:
    """Objects that Flower itself would not write."""
    changes: dict[str, dict[str, object]] = {
        "a chunk a million times": {"arraychunk_ids": [0] * 10**4},
        "a chunk twice": {"arraychunk_ids": [0, 0]},
        "a chunk that is not there": {"arraychunk_ids": [5]},
        "a chunk from the end": {"arraychunk_ids": [-7]},
        "no chunk": {"arraychunk_ids": []},
        "chunks of text": {"arraychunk_ids": "0"},
        "chunks of fractions": {"arraychunk_ids": [0.5]},
        "chunks of nothing": {"arraychunk_ids": None},
        "nested chunks": {"arraychunk_ids": [[0]]},
        "a shape of nothing": {"shape": None},
        "a shape of numbers": {"shape": 4},
        "a shape of text": {"shape": "four"},
        "a nested shape": {"shape": [[4]]},
        "a shape of tables": {"shape": [{"a": 1}]},
        "a type of numbers": {"dtype": 8},
        "a type of lists": {"dtype": ["<f8"] * 100},
        "a kind of nothing": {"stype": None},
    }
    for label, change in changes.items():
        yield Case(
            f"objects: {label}",
            bound(lambda f, x, change: _record_objects(f, _vectors(_array_object(x, **change))), change),
        )
    bodies = {
        "no JSON": b"\xff\xfe",
        "deep lists": b"[" * 20_000,
        "deep tables": b'{"a":' * 20_000,
        "a long number": b"1" * 20_000,
        "null": b"null",
        "a list": b"[]",
        "a text": b'"x"',
        "nothing": b"",
        "infinity": b'{"dtype": Infinity}',
    }
    for label, body in bodies.items():
        yield Case(
            f"an array's body: {label}", bound(lambda f, x, b: _record_objects(f, _vectors(Objects("Array", b))), body)
        )
        yield Case(
            f"a vector record's body: {label}",
            bound(lambda f, x, b: _record_objects(f, Objects("ArrayRecord", b)), body),
        )
        yield Case(f"the content's body: {label}", bound(lambda f, x, b: Objects("RecordDict", b), body))
        yield Case(
            f"a config record's body: {label}",
            bound(
                lambda f, x, b: _record_objects(
                    f,
                    _vectors(_array_object(x)),
                    {"update": Objects("ConfigRecord", b + b"\xff"), "vectors": _vectors(_array_object(x))},
                ),
                body,
            ),
        )
    for kind in ("Message", "Array", "ArrayChunk", "ArrayRecord", "ConfigRecord", "MetricRecord"):
        yield Case(f"content of the kind {kind}", bound(lambda f, x, kind: Objects(kind, b"{}"), kind))
        yield Case(
            f"vectors of the kind {kind}", bound(lambda f, x, kind: _record_objects(f, Objects(kind, b"{}")), kind)
        )
