"""Files of the user's that hide the packages that are installed beside this one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("clients", "server", "simulations")
"""The packages that are installed beside this one. A user's folder may well hold files of these names."""


def shadowed(*, runs_the_command: bool = True) -> str | None:
    """A sentence about a file that would be imported in place of one of our packages; None if there is none.

    `python -m`, a notebook and a script put a folder of the user's first on the path. Nothing is imported to find out.
    """
    ours = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None:
            continue
        place = spec.origin or next(iter(spec.submodule_search_locations or ()), None)  # a folder without __init__.py
        if place is None:
            continue
        file = Path(place).resolve()
        if file.name == "__init__.py":
            file = file.parent
        if file == ours / name:
            continue
        if not runs_the_command:
            remedy = "rename it, or run from another folder"
        elif file.parent == Path.cwd():
            remedy = (
                "run `fedopt` in place of `python -m fedopt` (`torchrun --no-python fedopt` in place of "
                "`torchrun -m fedopt`), or run it from another folder"
            )
        else:
            remedy = f"rename it, or take {file.parent} off PYTHONPATH"
        return f"{file} would be imported in place of fedopt's own package {name}; {remedy}"
    return None
