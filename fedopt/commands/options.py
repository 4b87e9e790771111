"""Arguments and options that several subcommands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedopt.errors import InvalidExperiment

ExperimentFile = Annotated[
    Path | None,
    typer.Argument(metavar="[EXPERIMENT.toml]", help="The experiment's file; without one, FedAvg on digits."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="SECTION.KEY=VALUE", help="Set one key of the experiment; may be repeated."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="New directory for the run. [default: a new one in runs/]"),
]
Resume = Annotated[
    Path | None,
    typer.Option("--resume", metavar="DIR", help="Continue the run in DIR from its last checkpoint."),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track", metavar="NAME", help="Also log to tensorboard, mlflow or wandb (needs that extra); may be repeated."
    ),
]


def _renamed(wanted: bool) -> None:
    if wanted:
        raise InvalidExperiment("--tensorboard is called --track tensorboard now")


TensorBoardFiles = Annotated[bool, typer.Option("--tensorboard", hidden=True, callback=_renamed)]
"""The option that --track has replaced."""


class ProgressStyle(StrEnum):
    AUTO = "auto"
    BAR = "bar"
    PLAIN = "plain"
    OFF = "off"


Progress = Annotated[
    ProgressStyle,
    typer.Option(
        "--progress", help="A bar that is redrawn, plain lines, or nothing. auto: a bar where a person looks at it."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, metavar="", help="Print what happens; -vv: every round."
    ),
]
LogFile = Annotated[Path | None, typer.Option("--log-file", metavar="FILE", help="Also append a detailed log to FILE.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")]


def command(name: str) -> typer.Typer:
    """A typer app for one subcommand."""
    return typer.Typer(
        name=name,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
