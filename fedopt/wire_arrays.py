"""The arrays of a message, as they are read from the network: checked before memory is allocated for them."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedopt.errors import FedoptError
from fedopt.storage.npy import NotThatArray, read_npy
from fedopt.text import plain
from fedopt.vectors.layout import Vectors

Arrays = Mapping[str, np.ndarray]

MOST_AXES = 8
"""Axes of an array, or of a sample."""

MOST_ARRAYS = 64
"""Arrays in one message; algorithms send a few."""


class PackedArray(Protocol):
    """Flower's Array: an array as it is sent. None of its fields can be trusted."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    data: bytes


class Malformed(FedoptError):
    """A message that breaks the protocol; the text is a clause about it."""


def unpack(packed: Mapping[str, PackedArray], like: Tensor, names: Collection[str] | None = None) -> Arrays:
    """The arrays of a message as read-only views, each with the shape and dtype of `like`, and no others than `names`.

    Everything is checked before memory is allocated. numpy.load is not used: it allocates what a header declares.
    """
    if names is not None and packed.keys() != set(names):
        raise Malformed(f"it brings {shown(sorted(packed))} where {sorted(names)} belong")
    if len(packed) > MOST_ARRAYS:
        raise Malformed(f"it brings {len(packed)} arrays")
    expected, shape = _dtype_of(like), tuple(like.shape)
    arrays: dict[str, np.ndarray] = {}
    for name, array in packed.items():
        if array.stype != "numpy.ndarray":
            raise Malformed(f"{plain(name)} is of the kind {shown(array.stype)}, where numpy.ndarray belongs")
        if array.dtype != expected.name or array.shape != shape:
            raise Malformed(_unlike(name, array.dtype, array.shape, like))
        try:
            arrays[name] = read_npy(array.data, expected, shape)
        except NotThatArray as error:
            raise Malformed(f"its vectors are not plain arrays: {plain(name)} {error}") from error
    return arrays


def read_vectors(arrays: Arrays, like: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    """The vectors of an update that no channel stage has changed: `names`, with the shape and dtype of `like`."""
    vectors = vectors_in(arrays, like)
    if vectors.keys() != set(names):
        raise Malformed(f"it brings {shown(sorted(vectors))} where {sorted(names)} belong")
    return vectors


def unpack_payload(packed: Mapping[str, PackedArray], most_bytes: int) -> dict[str, Tensor]:
    """The arrays of a channel's payload: any plain dtype and shape, at most `most_bytes` together.

    Everything is checked before memory is allocated.
    """
    if len(packed) > MOST_ARRAYS:
        raise Malformed(f"it brings {len(packed)} arrays")
    left, found = most_bytes, dict[str, Tensor]()
    for name, array in packed.items():
        if array.stype != "numpy.ndarray":
            raise Malformed(f"{plain(name)} is of the kind {shown(array.stype)}, where numpy.ndarray belongs")
        if array.dtype not in PAYLOAD_DTYPES:
            raise Malformed(f"{plain(name)} is of dtype {plain(array.dtype, 40)}, which no payload has")
        shape, dtype = _payload_shape(name, array.shape), np.dtype(array.dtype)
        left -= math.prod(shape) * dtype.itemsize
        if left < 0:
            raise Malformed(f"its payload is larger than {most_bytes} bytes")
        try:
            found[plain(name)] = torch.tensor(read_npy(array.data, dtype, shape))
        except NotThatArray as error:
            raise Malformed(f"its payload is not plain arrays: {plain(name)} {error}") from error
    return found


def _payload_shape(name: str, shape: object) -> tuple[int, ...]:
    axes = list(shape) if isinstance(shape, tuple | list) else [-1]
    if len(axes) > MOST_AXES or any(type(axis) is not int or not 0 <= axis < 2**40 for axis in axes):
        raise Malformed(f"{plain(name)} has the shape {shown(shape)}")
    return tuple(axes)


PAYLOAD_DTYPES = {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}


def as_arrays(vectors: Vectors) -> dict[str, np.ndarray]:
    return {name: vector.detach().cpu().contiguous().numpy() for name, vector in vectors.items()}


def vectors_in(arrays: Arrays, like: Tensor) -> dict[str, Tensor]:
    """Copies of the arrays as vectors [P] on the device of `like`; Malformed for another shape or dtype."""
    expected = _dtype_of(like)
    for name, array in arrays.items():
        if array.shape != tuple(like.shape) or array.dtype != expected:
            raise Malformed(_unlike(name, array.dtype, array.shape, like))
    # A copy: from_numpy would share memory that may be read-only.
    return {name: torch.tensor(array, device=like.device) for name, array in arrays.items()}


def _dtype_of(like: Tensor) -> np.dtype:
    return np.dtype(str(like.dtype).removeprefix("torch."))


def _unlike(name: str, dtype: object, shape: object, like: Tensor) -> str:
    return f"{plain(name)} is {plain(dtype, 40)} {shown(shape)}, the model {_dtype_of(like)} {tuple(like.shape)}"


def shown(value: object) -> str:
    """The value, shortened, on one line."""
    return plain(_SHORT.repr(value), 200)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
