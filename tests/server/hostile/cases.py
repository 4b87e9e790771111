"""A hostile reply as a named case, and how to build one.

A case gets the fields and the vector of the honest reply, and makes another reply's content or all of its objects.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, RecordDict
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


def setting(name: str, value: object) -> Callable[[Fields], object]:
    return lambda fields: fields.update({name: value})


def with_fields(change: Callable[[Fields], object]) -> Build:
    def build(fields: Fields, x: np.ndarray) -> RecordDict:
        changed = dict(fields)
        change(changed)
        return content(changed, dx=Array(x))

    return build


def array_of(make: Callable[[np.ndarray], Array]) -> Build:
    return lambda fields, x: content(fields, dx=make(x))


def file_of(make: Callable[[np.ndarray], bytes]) -> Build:
    return array_of(lambda x: as_declared(x, make(x)))
