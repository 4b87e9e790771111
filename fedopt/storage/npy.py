"""Reads an untrusted array in NumPy's .npy format, if it is exactly the array that is expected.

numpy.load allocates what a header declares before it reads, evaluates the header as Python, and also takes zip files
and pickles. This reader accepts only the form in which numpy.save writes a plain array. It compares dtype, shape and
number of bytes with the expected ones, and allocates nothing.

    \\x93NUMPY, major, minor, length of the header (2 bytes in version 1, 4 in versions 2 and 3; little-endian),
    {'descr': '<f4', 'fortran_order': False, 'shape': (3,), }, spaces, a line break, the numbers
"""

from __future__ import annotations

import math
import re

import numpy as np

MAGIC = b"\x93NUMPY"

LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
"""Bytes that hold the header's length, by version of the format."""

LONGEST_HEADER = 1024
"""numpy.save writes 118 bytes for an array of one axis."""

HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[A-Za-z][0-9]{1,4})', 'fortran_order': (False|True), "
    rb"'shape': \(((?:[0-9]{1,19}(?:, [0-9]{1,19})*,?)?)\), \} *\n"
)


class NotThatArray(ValueError):
    """The bytes are not the array that is expected; the message is a clause about them."""


def read_npy(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array in `data` as a read-only view. NotThatArray unless it is of just this type and shape."""
    descr, in_fortran_order, found_shape, start = _read_header(data)
    if descr != dtype.str or found_shape != shape:
        raise NotThatArray(f"holds {descr} {found_shape}, where {dtype.str} {shape} belongs")
    if in_fortran_order:
        raise NotThatArray("is in Fortran order")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        raise NotThatArray(f"has {len(data) - start} bytes of numbers, where {expected} belong")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _read_header(data: bytes) -> tuple[str, bool, tuple[int, ...], int]:
    """Type, whether in Fortran order, shape, and where the numbers start."""
    fixed = len(MAGIC) + 2
    if data[: len(MAGIC)] != MAGIC or len(data) < fixed:
        raise NotThatArray("is not in NumPy's .npy format")
    wide = LENGTH_BYTES.get((data[fixed - 2], data[fixed - 1]))
    if wide is None:
        raise NotThatArray("has an unknown version of the .npy format")
    start = fixed + wide
    length = int.from_bytes(data[fixed:start], "little")
    if length > LONGEST_HEADER or start + length > len(data):
        raise NotThatArray(f"has a header of {length} bytes")
    header = HEADER.fullmatch(data[start : start + length])
    if header is None:
        raise NotThatArray("has a header that describes no plain array")
    descr, order, sides = header.groups()
    shape = tuple(int(side) for side in sides.split(b",") if side)
    return descr.decode("ascii"), order == b"True", shape, start + length
