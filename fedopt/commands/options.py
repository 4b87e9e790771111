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
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="A new directory for the run; by default below runs/."),
]
Resume = Annotated[
    Path | None,
    typer.Option("--resume", metavar="DIR", help="Continue the run in DIR from its last checkpoint."),
]
TensorBoardFiles = Annotated[
    bool, typer.Option("--tensorboard", help="Write TensorBoard event files into DIR/tensorboard, too.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")]


def command(name: str) -> typer.Typer:
    """An app for one subcommand."""
    return typer.Typer(
        name=name,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
