"""Replies whose arrays are not valid .npy files."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from tests.server.hostile.cases import (
    Case,
    bound,
    file_of,
    headed,
    npy,
)

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


def file_cases() -> Iterator[Case]:
    for cut in (0, 1, 5, 6, 7, 8, 9, 10, 11, 20, 64, 127, 128, 129, 136, 152, 159):
        yield Case(f"cut after {cut} bytes", file_of(bound(lambda x, cut: npy(x)[:cut], cut)))
    for more in (1, 7, 8, 1000, 50_000):
        yield Case(f"{more} bytes too many", file_of(bound(lambda x, more: npy(x) + b"\x00" * more, more)))
    for version in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        for side in (10**3, 10**6, 10**9, 10**12, 10**18, 2**63, 10**30):
            header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({side},), }}\n".encode()
            yield Case(f"version {version[0]} declares {side}", file_of(_headed(header, version)))
        for label, header in HEADERS.items():
            yield Case(f"version {version[0]}, a header of {label}", file_of(_headed(header + b"\n", version)))
    for version in (b"\x00\x00", b"\x01\x01", b"\x02\x01", b"\x04\x00", b"\xff\xff"):
        yield Case(f"version {version!r}", file_of(bound(lambda x, v: b"\x93NUMPY" + v + npy(x)[8:], version)))
    for magic in (
        b"\x93NUMPX",
        b"\x92NUMPY",
        b"NUMPY\x93",
        b"PK\x03\x04\x00\x00",
        b"\x1f\x8b\x08\x00\x00\x00",
        b"\x80\x04\x95\x00\x00\x00",
    ):
        yield Case(f"magic {magic!r}", file_of(bound(lambda x, magic: magic + npy(x)[6:], magic)))
    for length in (0, 1, 10, 117, 119, 0xFFFF):
        yield Case(
            f"a header said to be {length} long",
            file_of(bound(lambda x, length: npy(x)[:8] + length.to_bytes(2, "little") + npy(x)[10:], length)),
        )
    for length in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        yield Case(
            f"version 2, a header said to be {length} long",
            file_of(bound(lambda x, length: npy(x, (2, 0))[:8] + length.to_bytes(4, "little") + npy(x)[10:], length)),
        )
    yield Case("only numbers", file_of(lambda x: x.tobytes()))
    yield from _other_formats()


def _headed(header: bytes, version: bytes) -> Callable[[np.ndarray], bytes]:
    def make(x: np.ndarray) -> bytes:
        if len(header) >= 2**16 and version[0] == 1:
            return headed(header[:60_000], x, version)
        return headed(header, x, version)

    return make


def _other_formats() -> Iterator[Case]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield Case(f"a pickle of protocol {protocol}", file_of(bound(lambda x, p: pickle.dumps({"a": 1}, p), protocol)))
    yield Case("an array of objects", file_of(lambda x: _objects()))
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
        yield Case(label, file_of(bound(lambda x, spoil: spoil(_npz(x)), spoil)))
    yield Case("a zip of nothing", file_of(lambda x: _zip({})))
    yield Case("a zip of no array", file_of(lambda x: _zip({"a.txt": b"hello"})))
    yield Case("a zip bomb", file_of(lambda x: _zip({"x.npy": b"\x00" * 10_000_000}, zipfile.ZIP_DEFLATED)))


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
