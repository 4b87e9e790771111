"""Checks that server/ and clients/ support the installed version of Flower. This module does not import Flower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from fedopt.errors import FedoptError

OLDEST, BELOW = (1, 39), (1, 43)
"""The oldest supported version, and the first one that is no longer supported: the same as in pyproject.toml."""

REMEDY = f"install a supported version: pip install 'flwr>={OLDEST[0]}.{OLDEST[1]},<{BELOW[0]}.{BELOW[1]}'"


class UnsupportedFlower(FedoptError):
    """Flower is not installed, or its version is not supported."""


def flower_version() -> tuple[int, int]:
    """Major and minor version of the installed Flower. Raises UnsupportedFlower if there is none."""
    try:
        major, minor = metadata.version("flwr").split(".")[:2]
    except metadata.PackageNotFoundError as error:
        raise UnsupportedFlower(f"Flower is not installed; {REMEDY}") from error
    return int(major), int(minor)


@contextmanager
def flower_imports() -> Iterator[None]:
    """For a block of imports of Flower's internals: raises UnsupportedFlower for a wrong version or a missing name."""
    supported = OLDEST <= flower_version() < BELOW
    installed = f"Flower {metadata.version('flwr')}"
    if not supported:
        raise UnsupportedFlower(f"fedopt does not support the installed {installed}; {REMEDY}")
    try:
        yield
    except ImportError as error:
        raise UnsupportedFlower(f"the installed {installed} lacks what fedopt needs ({error}); {REMEDY}") from error
