"""An exception of a worker process, raised again in its parent with the worker's traceback."""

from __future__ import annotations

import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fedopt.errors import FedoptError

OWN = [str(Path(__file__).parents[2] / package) for package in ("fedopt", "clients", "server", "simulations")]
STANDARD_LIBRARY = sysconfig.get_path("stdlib")


class WorkerTraceback(Exception):
    """The traceback of a worker process as text. It is the cause of the exception that the parent raises."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclass(frozen=True)
class Failure:
    """What a worker sends in place of its reports; it can be pickled whatever the exception holds."""

    error: Exception
    traceback: str
    """Empty for an error of fedopt's own, whose sentence says everything."""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        if isinstance(error, FedoptError):
            return cls(error, "")
        said = f"{type(error).__name__} in a worker process: {error}{place(error)}"
        return cls(RuntimeError(said), "".join(traceback.format_exception(error)))

    def raise_again(self) -> NoReturn:
        if not self.traceback:
            raise self.error
        raise self.error from WorkerTraceback(self.traceback)


def place(error: Exception) -> str:
    """The innermost line of the user's own code that the exception passed through; empty if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame.filename):
            return f" ({frame.filename}, line {frame.lineno}, in {frame.name})"
    return ""


def _is_users(file: str) -> bool:
    if file.startswith("<frozen "):
        return False
    path = Path(file)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and not any(path.is_relative_to(folder) for folder in (*OWN, STANDARD_LIBRARY))
