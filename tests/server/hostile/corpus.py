"""Replies that no honest client sends, each with a name: the same ones whenever it is asked.

A case gets the fields and the vector of the honest reply, and makes the content of another, or all of its objects.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from flwr.app.message import Array
from flwr.supercore.inflatable.inflatable_object import get_object_id

Fields = dict[str, Any]


@dataclass(frozen=True)
class Objects:
    """A reply as raw objects: what stands below its message, by kind, and bodies that may be anything."""

    kind: str
    body: bytes
    children: tuple[Objects, ...] = ()

    def deflate(self) -> bytes:
        ids = dict.fromkeys(get_object_id(child.deflate()) for child in self.children)
        return f"{self.kind} {','.join(ids)} {len(self.body)}".encode() + b"\x00" + self.body


def bound(function: Callable[..., Any], value: object) -> Callable[..., Any]:
    """The function with its last argument given."""
    return lambda *given: function(*given, value)


Reply = RecordDict | Objects | Error
Build = Callable[[Fields, np.ndarray], Reply]


@dataclass(frozen=True)
class Case:
    name: str
    build: Build
    harmless: bool = False
    """Whether it is a control: unusual, and to be accepted."""


NASTY_TEXTS = [
    *("[/pytorch/aten/src/ATen/native]", "[bold]", "[/]", "[link=file:///etc/passwd]x[/link]", "[red", "]][["),
    *("\x1b[2J\x1b[H", "\x1b]0;title\x07", "\r\nINFO forged line", "\x00", "\x7f\x9b31m", "\b" * 20, "\u202egnp.exe"),
    *("\u2028new line", "\ufeff", "a\u0300" * 50, "\U0001f600" * 10, "%s %d {} {0}", "../../etc/passwd", "x" * 10_000),
    *("\n" * 5_000, "'; DROP TABLE rounds; --", "<script>alert(1)</script>", "NaN", ""),
]


def content(fields: Fields, **arrays: Array) -> RecordDict:
    return RecordDict({"update": ConfigRecord(fields), "vectors": ArrayRecord(arrays)})


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def as_declared(x: np.ndarray, data: bytes) -> Array:
    """What is declared is right, the bytes are others."""
    return Array(dtype=str(x.dtype), shape=x.shape, stype="numpy.ndarray", data=data)


def headed(header: bytes, x: np.ndarray, version: bytes = b"\x01\x00") -> bytes:
    wide = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + len(header).to_bytes(wide, "little") + header + x.tobytes()


def _fields() -> Iterator[Case]:
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
        yield Case(f"field {name} missing", _with_fields(bound(lambda f, name: f.pop(name), name)))
        for label, value in wrong.items():
            yield Case(f"field {name} is {label}", _with_fields(_setting(name, value)))
    for name, value in (("round", 0), ("round", 2), ("client", 0), ("client", 3), ("samples", 0), ("samples", 11)):
        yield Case(f"field {name} is {value}", _with_fields(_setting(name, value)))
    for name, value in (("steps", 0), ("steps", 1000), ("samples", 7.0), ("steps", 1.0), ("loss", 1), ("loss", 1e30)):
        yield Case(f"field {name} is {value!r}", _with_fields(_setting(name, value)))
    for number, text in enumerate(NASTY_TEXTS):
        yield Case(f"reports a number of an unknown name, text {number}", _with_fields(_setting(f"number.{text}", 0.0)))
        yield Case(f"a text for the loss, text {number}", _with_fields(_setting("loss", text)))


def _setting(name: str, value: object) -> Callable[[Fields], object]:
    return lambda fields: fields.update({name: value})


def _with_fields(change: Callable[[Fields], object]) -> Build:
    def build(fields: Fields, x: np.ndarray) -> RecordDict:
        changed = dict(fields)
        change(changed)
        return content(changed, dx=Array(x))

    return build


def _of(make: Callable[[np.ndarray], Array]) -> Build:
    return lambda fields, x: content(fields, dx=make(x))


def _bytes(make: Callable[[np.ndarray], bytes]) -> Build:
    return _of(lambda x: as_declared(x, make(x)))


def _arrays() -> Iterator[Case]:
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
        yield Case(f"of type {kind}", _of(bound(lambda x, kind: Array(np.zeros(x.shape, kind)), kind)))
        yield Case(
            f"declared right, of type {kind}",
            _bytes(bound(lambda x, kind: npy(np.zeros(x.shape, kind)), kind)),
        )
    shapes: list[Callable[[int], tuple[int, ...]]] = [
        *(lambda p: (), lambda p: (1,), lambda p: (0,), lambda p: (p - 1,), lambda p: (p + 1,), lambda p: (p, 1)),
        *(lambda p: (1, p), lambda p: (2, p), lambda p: (0, p), lambda p: (1,) * 20),
    ]
    for number, shape in enumerate(shapes):
        yield Case(f"shape {number}", _of(bound(lambda x, shape: Array(np.zeros(shape(len(x)))), shape)))
        yield Case(
            f"declared right, shape {number}",
            _bytes(bound(lambda x, shape: npy(np.zeros(shape(len(x)))), shape)),
        )
    for value in (math.nan, math.inf, -math.inf, 1e300, -1e300, 2.0**32, -(2.0**32), 1e6, 1e9):
        yield Case(f"all entries {value}", _of(bound(lambda x, value: Array(np.full_like(x, value)), value)))
        if abs(value) != 1e6:
            for place in (0, -1):
                yield Case(f"entry {place} is {value}", _of(_placing(place, value)))
    yield Case("a million times itself", _of(lambda x: Array(1e6 * x)))


def _placing(place: int, value: float) -> Callable[[np.ndarray], Array]:
    def make(x: np.ndarray) -> Array:
        changed = x.copy()
        changed[place] = value
        return Array(changed)

    return make


HEADERS = {
    "code": b"__import__('os').system('true')",
    "a call": b"dict(descr='<f8', fortran_order=False, shape=(4,))",
    "a lambda": b"(lambda: 0)()",
    "brackets": b"(" * 900,
    "more brackets": b"[" * 5000,
    "a long number": b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1" * 5000 + b",), }",
    "an open string": b"{'descr': '<f8",
    "nothing": b"",
    "spaces": b" " * 100,
    "none": b"None",
    "no shape": b"{'descr': '<f8', 'fortran_order': False, }",
    "one key more": b"{'descr': '<f8', 'fortran_order': False, 'shape': (4,), 'x': 1, }",
    "fields": b"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (4,), }",
    "an object": b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    "a shape of text": b"{'descr': '<f8', 'fortran_order': False, 'shape': ('4',), }",
    "a shape of fractions": b"{'descr': '<f8', 'fortran_order': False, 'shape': (4.0,), }",
    "a shape of truth": b"{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }",
    "no tuple": b"{'descr': '<f8', 'fortran_order': False, 'shape': 4, }",
    "a negative shape": b"{'descr': '<f8', 'fortran_order': False, 'shape': (-4,), }",
    "two negative sides": b"{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -2), }",
    "an order of text": b"{'descr': '<f8', 'fortran_order': 'no', 'shape': (4,), }",
    "Fortran order": b"{'descr': '<f8', 'fortran_order': True, 'shape': (4,), }",
    "a strange type": b"{'descr': '<q99', 'fortran_order': False, 'shape': (4,), }",
    "no type": b"{'descr': None, 'fortran_order': False, 'shape': (4,), }",
    "other bytes": bytes(range(1, 200)),
    "zeros": b"\x00" * 100,
    "an indent": b"\n    {'descr'",
    "a comment": b"# coding: rot13",
}


def _files() -> Iterator[Case]:
    for cut in (0, 1, 5, 6, 7, 8, 9, 10, 11, 20, 64, 127, 128, 129, 136, 152, 159):
        yield Case(f"cut after {cut} bytes", _bytes(bound(lambda x, cut: npy(x)[:cut], cut)))
    for more in (1, 7, 8, 1000, 50_000):
        yield Case(f"{more} bytes too many", _bytes(bound(lambda x, more: npy(x) + b"\x00" * more, more)))
    for version in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        for side in (10**3, 10**6, 10**9, 10**12, 10**18, 2**63, 10**30):
            header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({side},), }}\n".encode()
            yield Case(f"version {version[0]} declares {side}", _bytes(_headed(header, version)))
        for label, header in HEADERS.items():
            yield Case(f"version {version[0]}, a header of {label}", _bytes(_headed(header + b"\n", version)))
    for version in (b"\x00\x00", b"\x01\x01", b"\x02\x01", b"\x04\x00", b"\xff\xff"):
        yield Case(f"version {version!r}", _bytes(bound(lambda x, v: b"\x93NUMPY" + v + npy(x)[8:], version)))
    for magic in (
        b"\x93NUMPX",
        b"\x92NUMPY",
        b"NUMPY\x93",
        b"PK\x03\x04\x00\x00",
        b"\x1f\x8b\x08\x00\x00\x00",
        b"\x80\x04\x95\x00\x00\x00",
    ):
        yield Case(f"magic {magic!r}", _bytes(bound(lambda x, magic: magic + npy(x)[6:], magic)))
    for length in (0, 1, 10, 117, 119, 0xFFFF):
        yield Case(
            f"a header said to be {length} long",
            _bytes(bound(lambda x, length: npy(x)[:8] + length.to_bytes(2, "little") + npy(x)[10:], length)),
        )
    for length in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        yield Case(
            f"version 2, a header said to be {length} long",
            _bytes(bound(lambda x, length: npy(x, (2, 0))[:8] + length.to_bytes(4, "little") + npy(x)[10:], length)),
        )
    yield Case("only numbers", _bytes(lambda x: x.tobytes()))
    yield from _other_formats()


def _headed(header: bytes, version: bytes) -> Callable[[np.ndarray], bytes]:
    def make(x: np.ndarray) -> bytes:
        if len(header) >= 2**16 and version[0] == 1:
            return headed(header[:60_000], x, version)
        return headed(header, x, version)

    return make


def _other_formats() -> Iterator[Case]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield Case(f"a pickle of protocol {protocol}", _bytes(bound(lambda x, p: pickle.dumps({"a": 1}, p), protocol)))
    yield Case("an array of objects", _bytes(lambda x: _objects()))
    for label, spoil in {
        "an npz": lambda z: z,
        "a cut npz": lambda z: z[:-30],
        "the start of an npz": lambda z: z[:60],
        "an npz with a wrong checksum": lambda z: z.replace(
            b"\x00\x00\x00\x00\x00\x00\xf0?", b"\x00\x00\x00\x00\x00\x00\xf1?", 1
        ),
        "an npz without an end": lambda z: z[: z.rindex(b"PK\x05\x06")],
        "an npz with its end alone": lambda z: z[z.rindex(b"PK\x05\x06") :],
    }.items():
        yield Case(label, _bytes(bound(lambda x, spoil: spoil(_npz(x)), spoil)))
    yield Case("a zip of nothing", _bytes(lambda x: _zip({})))
    yield Case("a zip of no array", _bytes(lambda x: _zip({"a.txt": b"hello"})))
    yield Case("a zip bomb", _bytes(lambda x: _zip({"x.npy": b"\x00" * 10_000_000}, zipfile.ZIP_DEFLATED)))


def _objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}] * 4, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _npz(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones_like(x))
    return buffer.getvalue()


def _zip(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _records() -> Iterator[Case]:
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
        yield Case(f"stype {kind[:10]!r}", _of(bound(lambda x, kind: Array(str(x.dtype), x.shape, kind, npy(x)), kind)))
    for kind in ("float32", "object", "", "f8", "<f8", "x" * 1000):
        yield Case(
            f"declared {kind[:10]!r}", _of(bound(lambda x, kind: Array(kind, x.shape, "numpy.ndarray", npy(x)), kind))
        )
    for shape in ((), (1,), (-1,), (10**12,), (2, 2), (1,) * 1000):
        yield Case(
            f"declared {str(shape)[:20]}",
            _of(bound(lambda x, s: Array(str(x.dtype), s, "numpy.ndarray", npy(x)), shape)),
        )
    yield Case("a field more", _with_fields(_setting("extra", 1)), harmless=True)
    yield Case("version 2.0", _bytes(lambda x: npy(x, (2, 0))), harmless=True)
    yield Case("version 3.0", _bytes(lambda x: npy(x, (3, 0))), harmless=True)


def _errors() -> Iterator[Case]:
    for number, text in enumerate(NASTY_TEXTS):
        yield Case(f"an error, text {number}", bound(lambda f, x, text: Error(2, text), text))
    for code in (-(2**63), -1, 0, 7, 999, 2**63 - 1):
        yield Case(f"an error of code {code}", bound(lambda f, x, code: Error(code, "odd"), code))


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


def _raw() -> Iterator[Case]:
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


def corpus() -> list[Case]:
    """All cases."""
    parts = (_fields(), _arrays(), _files(), _records(), _errors(), _raw())
    return [case for part in parts for case in part]
