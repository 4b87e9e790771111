"""`fedopt new`: a small project to start from, copied from fedopt/templates."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment, NotStored

app = command("new")

TEMPLATES = Path(__file__).parents[1] / "templates"
FLOWER = "flower"


@app.command(epilog="Example:  fedopt new my-project, then fedopt run my-project/experiment.toml")
def new(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="The new folder.")],
    flower: Annotated[bool, typer.Option("--flower", help="A Flower App with fedopt's algorithms.")] = False,
) -> None:
    """Write a small project: an experiment, a model and an algorithm of your own; or, with --flower, a Flower App."""
    write_project(folder, FLOWER if flower else "project")
    then = f"flwr run {folder} --stream" if flower else f"fedopt run {folder / 'experiment.toml'}"
    print(f"{folder} is written; next: {then}")


def write_project(folder: Path, template: str) -> None:
    """Copies the template into a new folder. InvalidExperiment if there is something of this name, or no such name."""
    if template == FLOWER and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", folder.name):
        raise InvalidExperiment(f"{folder.name!r} cannot be the name of a Flower App: use letters, digits and hyphens")
    if folder.exists():
        raise InvalidExperiment(f"{folder} exists already; give the name of a new folder")
    source = TEMPLATES / template
    try:
        folder.mkdir(parents=True)
        for file in sorted(source.iterdir()):
            if file.is_file():  # and no __pycache__
                shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise NotStored(f"{folder} cannot be written: {error.strerror}") from error
    if template == FLOWER:
        project = folder / "pyproject.toml"
        project.write_text(project.read_text().replace('name = "flower-app"', f'name = "{folder.name}"'))
