"""`fedopt list`: the names an experiment may use, and what runs measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedopt.algorithms import ALGORITHMS
from fedopt.commands.options import command
from fedopt.data import PARTITIONS, SOURCES
from fedopt.errors import InvalidExperiment
from fedopt.models import MODELS
from fedopt.optimizers import OPTIMIZERS
from fedopt.registry import load_attribute, nearest

app = command("list")

STUDIES = "simulations.study.file:shipped_studies"
"""By name: this package knows of no engine."""

KINDS = {
    "data.name": SOURCES,
    "data.partition": PARTITIONS,
    "model.name": MODELS,
    "algorithm.name": ALGORITHMS,
    "local.optimizer": OPTIMIZERS,
}


@app.command(epilog="Example:  fedopt list metrics")
def names(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[names|metrics|studies]", help="Names of an experiment, what runs measure, or shipped studies."
        ),
    ] = "names",
) -> None:
    """List the names an experiment may use: data, partitions, models, algorithms, optimizers.

    **fedopt list metrics** explains what metrics.jsonl and partition.json say, with the formula of each measure.
    """
    listings = {"names": _print_names, "metrics": _print_metrics, "studies": _print_studies}
    if what not in listings:
        raise InvalidExperiment(f"list {what}: {nearest(what, listings)}")
    listings[what]()


def _print_metrics() -> None:
    from fedopt.runs.catalog import NOTATION, READING, metrics

    console = Console()
    console.print(f"{NOTATION} {READING}", highlight=False, markup=False)
    for title, entries in metrics().items():
        table = Table("name", "meaning", title=title, title_justify="left", box=None, pad_edge=False)
        table.columns[0].no_wrap = True
        for name, meaning in entries.items():
            table.add_row(name, escape(meaning))
        console.print()
        console.print(table)


def _print_studies() -> None:
    told = cast(Callable[[], dict[str, str]], load_attribute(STUDIES))()
    for name, about in told.items():
        Console().print(f"[bold]{name}[/bold]  {escape(about)}", highlight=False)


def _print_names() -> None:
    table = Table("key", "names", box=None, pad_edge=False)
    for key, registry in KINDS.items():
        table.add_row(key, ", ".join(registry) + (", package.module:function" if registry is MODELS else ""))
    Console().print(table)
