"""`fedopt bench federation`: the cost of a deployed federation on this machine, beside stock Flower.

Imports that load Flower are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedopt.commands.options import command

if TYPE_CHECKING:
    from server.bench import Cell

app = command("federation")


@app.command(epilog="Example:  fedopt bench federation --clients 2 --clients 4 --stock 4")
def federation(
    clients: Annotated[
        list[int] | None, typer.Option("--clients", min=1, help="Number of clients; may be repeated. [2, 4, 8, 20]")
    ] = None,
    stock: Annotated[
        list[int] | None,
        typer.Option(
            "--stock", min=1, help="Also measure this many stock SuperNodes (a minute each); may be repeated."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of resident clients.")] = 30,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Measure the seconds per round with trivial clients on this machine: the cost of the federation itself.

    Resident clients are those of `fedopt federation`. Stock clients are Flower's own: `flwr run` on a SuperLink with
    SuperNodes, with the same app and experiment.
    """
    from server.bench import machine, measure_resident, measure_stock

    work = [("resident", n) for n in clients or [2, 4, 8, 20]] + [("stock", n) for n in stock or []]
    console = Console(stderr=True)
    cells = [
        measure_stock(n) if kind == "stock" else measure_resident(n, rounds)
        for kind, n in track(work, "measuring", console=console, transient=True)
    ]
    if json_output:
        print(json.dumps({"cells": [asdict(cell) for cell in cells], "machine": machine()}))
        return
    print_table(cells)


def print_table(cells: list[Cell]) -> None:
    from server.bench import machine

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("clients", "nodes", "s a round", "range", "s a client", "s to round 1", "MiB"):
        table.add_column(title, justify="left" if title == "nodes" else "right", no_wrap=True)
    for cell in cells:
        table.add_row(
            str(cell.clients),
            cell.nodes,
            f"{cell.round_seconds:.3f}",
            f"{cell.round_min:.3f} - {cell.round_max:.3f}",
            f"{cell.round_seconds / cell.clients:.3f}",
            f"{cell.first_round_seconds:.1f}",
            "" if cell.server_mib is None else f"{cell.server_mib:.0f}",
        )
    Console().print(table)
    about = machine()
    print(f"{date.today()}, {about['cores']} cores, Python {about['python']}; medians over rounds")
