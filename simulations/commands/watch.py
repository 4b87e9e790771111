"""`fedopt watch`: a run's curves in the terminal while it runs.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

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

app = command("watch")

EVERY = 1.0
"""Seconds between two readings of the directory."""


@app.command(epilog="Example:  fedopt watch runs/a --metric test_accuracy --metric drift.ratio")
def watch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run or a study, running or finished.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", "-m", metavar="NAME", help="Measure to plot; may be repeated. See fedopt list metrics."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the present curves and exit.")] = False,
) -> None:
    """Plot the curves of a run, or of a study's runs, in the terminal and update them while the runs go on.

    Ends when all runs have ended, or with Ctrl-C, which does not stop the runs. If standard output is no terminal,
    the curves are printed once.
    """
    from simulations.report.curves import CURVE_MEASURES
    from simulations.report.terminal import DEFAULT, screen
    from simulations.results import read_results

    for name in metric or ():
        if name not in CURVE_MEASURES:
            raise InvalidExperiment(f"--metric {name}: {nearest(name, CURVE_MEASURES)}")
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
        pass  # the user has seen enough; the last curves are printed below
    console.print(screen(read_results([directory]), measures, console.width, console.height))
