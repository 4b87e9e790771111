"""`fedopt list`: the names that an experiment may use, and what runs measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedopt.algorithms import ALGORITHMS
from fedopt.channel import STAGES
from fedopt.commands.options import command
from fedopt.data import PARTITIONS, SOURCES
from fedopt.errors import InvalidExperiment
from fedopt.models import LOSSES, MODELS
from fedopt.optimizers import OPTIMIZERS
from fedopt.registry import Registry, load_attribute, nearest
from fedopt.round.gathering import GATHERINGS
from fedopt.schedules import SCHEDULES
from fedopt.server_optimizers import SERVER_OPTIMIZERS

app = command("list")

STUDIES = "simulations.study.file:shipped_studies"
"""A string, because this package does not import the simulations."""


@dataclass(frozen=True)
class Kind:
    """One kind of name: a table of `fedopt list`."""

    key: str
    """Where an experiment says it, as in `algorithm.name`."""
    registry: Registry
    custom: tuple[str, str] | None = None
    """How a user names one of their own, and half a line about it."""


KINDS = {
    "data": Kind("data.name", SOURCES),
    "partitions": Kind("data.partition", PARTITIONS),
    "models": Kind(
        "model.name", MODELS, ("package.module:function", "your own function that returns a torch.nn.Module")
    ),
    "losses": Kind("model.loss", LOSSES, ("package.module:function", "your own function of outputs and targets")),
    "algorithms": Kind("algorithm.name", ALGORITHMS),
    "optimizers": Kind("local.optimizer", OPTIMIZERS),
    "servers": Kind("algorithm.server", SERVER_OPTIMIZERS),
    "schedules": Kind("local.schedule", SCHEDULES),
    "stages": Kind("channel.stages", STAGES, ("package.module:Class", "your own class derived from Stage")),
    "rules": Kind("gathering.name", GATHERINGS),
}


@app.command(epilog="Example:  fedopt list algorithms")
def names(
    what: Annotated[
        str,
        typer.Argument(
            metavar=f"[names|{'|'.join(KINDS)}|keys|metrics|studies]",
            help="All names of an experiment, one kind of them, its keys, what runs measure, or the shipped studies.",
        ),
    ] = "names",
) -> None:
    """List the names that an experiment may use, each with half a line and its paper.

    **fedopt list algorithms** adds each one's rule, its keys with their defaults, and what travels and is kept.
    **fedopt list keys** explains every key of an experiment, with its values and its default.
    **fedopt list metrics** explains what metrics.jsonl and partition.json contain, with the formula of each measure.
    """
    listings = {"names": _print_names, "keys": _print_keys, "metrics": _print_metrics, "studies": _print_studies}
    if what == "algorithms":
        _print_algorithms()
    elif what in KINDS:
        _print_kind(what)
    elif what in listings:
        listings[what]()
    else:
        raise InvalidExperiment(f"list {what}: {nearest(what, [*KINDS, *listings])}")


def _print_names() -> None:
    for number, name in enumerate(KINDS):
        if number:
            Console().print()
        _print_kind(name)


def _print_kind(name: str) -> None:
    kind = KINDS[name]
    table = Table(
        "name", "about", "paper", title=f"{name} ({kind.key})", title_justify="left", box=None, pad_edge=False
    )
    table.columns[0].no_wrap = True
    for known in kind.registry:
        entry = kind.registry.entry(known)
        table.add_row(known, escape(entry.about), escape(entry.paper))
    for prefix, entry in kind.registry.prefixes.items():
        table.add_row(f"{prefix}:NAME", escape(entry.about), escape(entry.paper))
    if kind.custom:
        table.add_row(*kind.custom)
    Console().print(table, highlight=False)


def _print_algorithms() -> None:
    from fedopt.experiment.algorithms import algorithm_facts, keepers, traffic

    console = Console()
    for number, facts in enumerate(algorithm_facts()):
        if number:
            console.print()
        paper = f" ({facts.entry.paper})" if facts.entry.paper else ""
        console.print(f"[bold]{facts.name}[/bold]  {escape(facts.entry.about + paper)}", highlight=False)
        keys = [f"{key.name.partition('.')[2]} = {key.default}" for key in facts.keys]
        others = [f"{key} = {json.dumps(value)}" for key, value in facts.other_defaults.items()]
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        lines = {
            "rule": facts.entry.rule,
            "keys": ", ".join(keys),
            "other defaults": ", ".join(others),
            "a round": traffic(facts),
            "between rounds": keepers(facts),
        }
        for title, text in lines.items():
            if text:
                table.add_row(f"  {title}", escape(text))
        console.print(table, highlight=False)
    console.print("\nAll have server_lr and weighting: see fedopt list keys.", highlight=False)


def _print_keys() -> None:
    from fedopt.experiment.keys import key_groups

    console = Console()
    for number, group in enumerate(key_groups()):
        if number:
            console.print()
        table = Table("key", "values", "default", "meaning", box=None, pad_edge=False)
        table.columns[0].no_wrap = True
        for key in group.keys:
            table.add_row(key.name, escape(key.kind), escape(key.default), escape(key.meaning))
        console.print(group.title, style="bold", highlight=False, markup=False)
        if group.about:
            console.print(group.about, highlight=False, markup=False)
        console.print(table, highlight=False)


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
    studies = cast(Callable[[], dict[str, str]], load_attribute(STUDIES))()
    for name, about in studies.items():
        Console().print(f"[bold]{name}[/bold]  {escape(about)}", highlight=False)
