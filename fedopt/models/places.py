"""Where the module of a user's own model is: found beside the experiment's file, and again when its run goes on.

The folder is a fact of one machine: it lies in the run's directory, in a file of its own. It is no part of the
experiment, so that it never travels, and nothing that came over a network is ever searched.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from fedopt.errors import InvalidExperiment
from fedopt.storage.files import replace_file
from fedopt.storage.record import Line

PLACE = "model-module.json"
"""In the directory of a run whose model is of the user's own."""


class Place(Line):
    """model-module.json: the top-level module or package, and the folder that it was imported from."""

    module: str
    folder: str


def search_in(folder: Path) -> None:
    """From now on modules are looked for in this folder, too, after all others; child processes inherit that."""
    if str(folder.absolute()) not in sys.path:
        sys.path.append(str(folder.absolute()))


def record_place(name: str, run: Path) -> None:
    """Writes down where the module of `package.module:function` is, if it is anywhere."""
    module = _top(name)
    folder = _folder_of(module)
    if folder is not None:
        place = Place(module=module, folder=str(folder))
        replace_file(run / PLACE, (place.model_dump_json() + "\n").encode())


def recall_place(name: str, run: Path) -> None:
    """Searches where the run's module was found at first. InvalidExperiment if another of that name comes before."""
    try:
        place = Place.model_validate_json((run / PLACE).read_bytes())
    except FileNotFoundError:
        return
    except (ValidationError, OSError) as error:
        raise InvalidExperiment(f"{run / PLACE} cannot be read: remove it, or mend it") from error
    folder = Path(place.folder)
    if place.module != _top(name) or not folder.is_absolute():
        return  # edited, or copied from another run
    if PathFinder.find_spec(place.module, [place.folder]) is None:
        return  # it has moved: what is at hand will do
    search_in(folder)
    found = _folder_of(place.module)
    if found is not None and found.resolve() != folder.resolve():
        raise InvalidExperiment(
            f"model.name: {name} is in {found} and in {folder}, where the run began; resume from there, or remove one"
        )


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
