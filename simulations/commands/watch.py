"""`fedopt watch`: the curves of a run in the terminal, while it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from fedopt.registry import nearest
from simulations.report.curves import SHOWN
from simulations.report.terminal import DEFAULT, screen
from simulations.results import read_results

app = command("watch")

EVERY = 1.0
"""Seconds between looks."""


@app.command(epilog="Example:  fedopt watch runs/a --metric test_accuracy --metric drift.ratio")
def watch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run, or a study, whether it goes on or not.")],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="NAME", help="What to plot; may be repeated; see fedopt list metrics."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the curves as they are now, and end.")] = False,
) -> None:
    """Show the curves of a run, or of the runs of a study, in the terminal while they are being written.

    Ends with the last run, or with Ctrl-C, which stops the watching alone. Where there is no terminal the curves are
    printed once.
    """
    for name in metric or ():
        if name not in SHOWN:
            raise InvalidExperiment(f"--metric {name}: {nearest(name, SHOWN)}")
    measures, console = tuple(metric or DEFAULT), Console()
    if once or not console.is_terminal:
        console.print(screen(read_results([directory]), measures, console.width, height=15 * len(measures)))
        return
    try:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                results = read_results([directory])
                live.update(screen(results, measures, console.width, console.height), refresh=True)
                if all(row.status != "unfinished" for row in results.rows):
                    break
                time.sleep(EVERY)
    except KeyboardInterrupt:
        pass  # the end that was asked for
    console.print(screen(read_results([directory]), measures, console.width, console.height))
