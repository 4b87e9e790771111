"""Arguments that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ExperimentFile = Annotated[
    Path | None,
    typer.Argument(metavar="[EXPERIMENT.toml]", help="The experiment; the digits default without one."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="SECTION.KEY=VALUE", help="Change one key of the experiment; may be repeated."),
]


def command(name: str) -> typer.Typer:
    """An app for one subcommand."""
    return typer.Typer(
        name=name,
        add_completion=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
