"""Where the modules of a user's own code are: found beside the experiment's file, and again when its run goes on.

The folders are facts of one machine: they lie in the run's directory, in a file of their own. They are no part of the
experiment, so that they never travel, and nothing that came over a network is ever searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedopt.errors import InvalidExperiment
from fedopt.imports import search_in
from fedopt.storage.files import replace_file
from fedopt.storage.record import Line

MODULES = "modules.json"
"""In the directory of a run whose experiment names code from outside."""

BEFORE = "model-module.json"
"""In the directory of a run from before anything but a model could come from outside: one module, one folder."""


class Modules(Line):
    """modules.json."""

    folders: dict[str, str]
    """For each top-level module or package, the folder that it was imported from."""


class _ModelModule(Line):
    """model-module.json."""

    module: str
    folder: str


def record_modules(names: Iterable[str], run: Path) -> None:
    """Writes down where the modules of these `package.module:attribute` are, if there are any."""
    folders = {module: str(folder) for module in sorted(map(_top, names)) if (folder := _folder_of(module)) is not None}
    if folders:
        replace_file(run / MODULES, (Modules(folders=folders).model_dump_json() + "\n").encode())


def recall_modules(sections: Mapping[str, Any], run: Path) -> None:
    """Searches where the modules that an experiment names were found when its run began.

    InvalidExperiment if another module of such a name would be imported instead.
    """
    folders = _recorded(run)
    for key, value in _strings(sections):
        module = _top(value)
        if ":" in value and module in folders:
            _recall(module, Path(folders[module]), f"{key}: {value}")


def _recorded(run: Path) -> dict[str, str]:
    for name in (MODULES, BEFORE):
        try:
            content = (run / name).read_bytes()
            if name == MODULES:
                return Modules.model_validate_json(content).folders
            before = _ModelModule.model_validate_json(content)
        except FileNotFoundError:
            continue
        except (ValidationError, OSError) as error:
            raise InvalidExperiment(f"{run / name} cannot be read: remove it, or mend it") from error
        return {before.module: before.folder}
    return {}


def _recall(module: str, folder: Path, named: str) -> None:
    if not folder.is_absolute() or PathFinder.find_spec(module, [str(folder)]) is None:
        return  # it has moved: the module that is found otherwise will do
    search_in(folder)
    found = _folder_of(module)
    if found is not None and found.resolve() != folder.resolve():
        raise InvalidExperiment(
            f"{named} is in {found} and in {folder}, where the run began; resume from there, or remove one"
        )


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in tables and lists, with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _strings(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)


def _top(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]


def _folder_of(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:  # a package: the folder that holds its folder
        return Path(next(iter(spec.submodule_search_locations))).absolute().parent
    return None if spec.origin is None else Path(spec.origin).absolute().parent
