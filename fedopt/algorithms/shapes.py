"""Refuses results of an algorithm's hooks that would be broadcast: a clear sentence in place of wrong numbers."""

from __future__ import annotations

from typing import NoReturn

from torch import Size, Tensor

from fedopt.algorithms.base import Algorithm
from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import Vectors


def check_rows(algorithm: Algorithm, hook: str, found: Tensor | None, rows: Size) -> None:
    """Refuses what `start` or `shift` returned if it is neither None nor [Q], [1, Q] or [lanes, Q]; `rows` is the
    last one."""
    lanes, entries = rows
    if found is None or getattr(found, "shape", None) in ((entries,), (1, entries), (lanes, entries)):
        return
    _refuse(algorithm, f"{hook} returned {_described(found)}", f"[{entries}] or [{lanes}, {entries}], or None")


def check_prepared(algorithm: Algorithm, prepared: Vectors, rows: Size) -> None:
    """Refuses vectors of `begin` that do not fit rows [lanes, Q]; a number for all lanes, or for each one, does."""
    lanes, entries = rows
    for name, vector in prepared.items():
        shape = getattr(vector, "shape", None)
        fits = shape in ((), (entries,)) or (
            shape is not None and len(shape) == 2 and shape[0] in (1, lanes) and shape[1] in (1, entries)
        )
        if not fits:
            found = f"begin returned {name} as {_described(vector)}"
            _refuse(algorithm, found, f"[{entries}] or [{lanes}, {entries}]")


def refuse_corrected(algorithm: Algorithm, found: object, rows: Size) -> NoReturn:
    """Refuses what `correct` returned, which is not of the gradient's shape [lanes, Q]."""
    lanes, entries = rows
    _refuse(algorithm, f"correct returned {_described(found)}", f"[{lanes}, {entries}], the shape of the gradient")


def _described(found: object) -> str:
    return f"shape {list(found.shape)}" if isinstance(found, Tensor) else f"{type(found).__name__}, no tensor"


def _refuse(algorithm: Algorithm, found: str, wanted: str) -> NoReturn:
    raise InvalidExperiment(f"algorithm {algorithm.name}: {found}, and must return {wanted}")
