"""A fingerprint of the code that defines a user's model, so that two models of one name are two models."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from fedopt.imports import place_of

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def code_fingerprint(model: nn.Module | Callable[..., Any]) -> str:
    """16 hex digits of a module's layers and of the source of its classes, or of a function and what it encloses.

    Two functions that one factory returns have one name and one source; the values that they enclose differ. Global
    variables that the code reads are not looked at.
    """
    found = hashlib.sha256()
    for part in _of_module(model) if isinstance(model, nn.Module) else _of_callable(model):
        found.update(part.encode() + b"\0")
    return found.hexdigest()[:16]


def _of_module(module: nn.Module) -> Iterator[str]:
    yield repr(module)
    kinds = {place_of(type(part)): type(part) for part in module.modules()}
    for name in sorted(kinds):
        yield name
        if not kinds[name].__module__.startswith("torch."):
            yield _source(kinds[name])


def _of_callable(function: Callable[..., Any]) -> Iterator[str]:
    yield place_of(function)
    yield _source(function if hasattr(function, "__qualname__") else type(function))
    for cell in getattr(function, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        yield place_of(value) if hasattr(value, "__qualname__") else ADDRESS.sub("", repr(value))


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed at a prompt, or built in
        code = getattr(thing, "__code__", None)
        return "" if code is None else f"{code.co_code.hex()} {ADDRESS.sub('', repr(code.co_consts))}"
