"""Importing by name: `package.module:attribute`, in this package and from outside.

`load_outside` is the only function that imports what an experiment names in this way. A client of somebody else's
server says first, by `allowing`, what that server may have it import.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from fedopt.errors import InvalidExperiment
from fedopt.shadowing import PACKAGES, shadowed

_allowed: ContextVar[frozenset[str] | None] = ContextVar("allowed", default=None)
_reading_only: ContextVar[bool] = ContextVar("reading only", default=False)

LOCAL = "<locals>"
"""In the qualified name of what was defined inside a function."""

OBJECT = "()"
"""In the name of an object."""

_local: dict[str, object] = {}


class CannotImport(ValueError):
    """The module is not there, fails, or has no such attribute."""


def optional(module: str, needs: str, extra: str) -> Any:
    """Imports a package that is installed only with one of fedopt's extras; `needs` is what the message says needs it.

    InvalidExperiment says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # it is there, but something that it imports is not
        raise InvalidExperiment(f"{needs} needs {module}: pip install 'fedopt[{extra}]'") from error


def load_attribute(place: str) -> object:
    """Imports `package.module:attribute`."""
    module, _, attribute = place.partition(":")
    if module.partition(".")[0] in PACKAGES and (sentence := shadowed(runs_the_command=False)) is not None:
        raise InvalidExperiment(sentence)
    found: object = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def place_of(kind: object) -> str:
    """`package.module:Name` of a class or function, also of one in the script that Python was started with.

    Of any other object, it is that of its class.
    """
    named = kind if hasattr(kind, "__qualname__") else type(kind)
    module = named.__module__
    return f"{_main() or module if module == '__main__' else module}:{named.__qualname__}"


def remember(thing: object) -> str:
    """The name by which this process finds a class, a function or a callable object, wherever it was defined.

    What no import finds, because it was defined inside a function or is an object, is held.
    """
    place = place_of(thing)
    if not hasattr(thing, "__qualname__"):
        settings = repr(sorted((key, str(value)) for key, value in vars(thing).items() if key != "training"))
        place += f"{OBJECT}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    if LOCAL in place or OBJECT in place:
        _local[place] = thing
    return place


def _main() -> str | None:
    """What another process would import as `package.module` to get this one's `__main__`, if there is such a name."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name
    file = Path(getattr(main, "__file__", None) or "")
    return file.stem if file.suffix == ".py" else None


@contextmanager
def allowing(names: Iterable[str] | None) -> Iterator[None]:
    """Lets only these names be loaded, in this thread and while this context lasts; None lets any."""
    token = _allowed.set(None if names is None else frozenset(names))
    try:
        yield
    finally:
        _allowed.reset(token)


@contextmanager
def reading_only() -> Iterator[None]:
    """For code that reads an experiment and runs nothing of it: a model of the user's own is then not imported."""
    token = _reading_only.set(True)
    try:
        yield
    finally:
        _reading_only.reset(token)


def is_reading_only() -> bool:
    return _reading_only.get()


def load_outside(name: str) -> object:
    """Imports `package.module:attribute`, from the current folder, too.

    InvalidExperiment if the name is not allowed: then nothing has been imported. CannotImport if there is nothing of
    this name.
    """
    allowed = _allowed.get()
    if allowed is not None and name not in allowed:
        raise InvalidExperiment(
            f"the server wants this machine to run {name}; if you trust it, start the client with --allow-code {name} "
            f"(a stock SuperNode with allow-code='{name}' in its --node-config)"
        )
    if name in _local:
        return _local[name]
    search_in(Path.cwd())  # a console script does not look where the user stands
    module, colon, attribute = name.partition(":")
    try:  # a script's own classes are there already, and would be others after a second import
        return load_attribute(f"{'__main__' if module == _main() else module}{colon}{attribute}")
    except (ImportError, AttributeError, ValueError) as error:
        if module == "__main__" or LOCAL in attribute or OBJECT in attribute:
            raise CannotImport(
                f"{name} was defined in a notebook, a session or a function; define it there again, or move it to a "
                "module"
            ) from error
        raise CannotImport(f"{name} cannot be imported: {error}") from error
    except Exception as error:  # whatever a user's own module may raise while it is executed
        raise CannotImport(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def search_in(folder: Path) -> None:
    """From now on modules are looked for in this folder, too, after all others; child processes inherit that."""
    if str(folder.absolute()) not in sys.path:
        sys.path.append(str(folder.absolute()))
