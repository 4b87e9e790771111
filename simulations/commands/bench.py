"""`fedopt bench engine`: virtual clients against the plain training loop."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from fedopt.models import MODELS
from fedopt.registry import nearest
from simulations.benchmarks.engine import Cell, as_json, machine, measure

app = command("engine")

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")


@app.command(epilog="Example:  fedopt bench engine --model mlp --batch 10 --repeats 9")
def engine(
    model: Annotated[
        list[str] | None, typer.Option(help="Model to measure; may be repeated. [logistic, mlp, cnn]")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; may be repeated. [10, 64]")] = None,
    optimizer: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}; may be repeated. [sgd]")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each, after one to warm up.")] = 5,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Client steps per second of this engine and of the plain loop, interleaved, one thread.

    The plain loop is nn.Module, torch.optim and tensors in memory, one client after the other, on the same
    minibatches. A ratio above 1 means that this engine is faster.
    """
    for name in model or ():
        if name not in MODELS:
            raise InvalidExperiment(f"--model {name}: {nearest(name, MODELS)}")
    for name in optimizer or ():
        if name not in OPTIMIZERS:
            raise InvalidExperiment(f"--optimizer {name}: {nearest(name, OPTIMIZERS)}")
    grid = [
        (m, b, o) for m in model or ["logistic", "mlp", "cnn"] for b in batch or [10, 64] for o in optimizer or ["sgd"]
    ]
    console = Console(stderr=True)
    cells = [measure(m, b, o, repeats=repeats) for m, b, o in track(grid, "measuring", console=console, transient=True)]
    if json_output:
        print(json.dumps(as_json(cells)))
        return
    Console().print(table(cells))
    about = machine()
    print(f"{date.today()}, {about['processor']}, {about['cores']} cores, torch {about['torch']}, 1 thread")


def table(cells: list[Cell]) -> Table:
    shown = Table("model", "batch", "optimizer", box=None, pad_edge=False, header_style="bold")
    for title in ("lanes", "steps/s", "plain steps/s", "ratio", "spread"):
        shown.add_column(title, justify="right")
    for cell in cells:
        shown.add_row(
            cell.model,
            str(cell.batch),
            cell.optimizer,
            str(cell.lanes),
            f"{cell.steps_per_second:,.0f}",
            f"{cell.plain_steps_per_second:,.0f}",
            f"{cell.ratio:.2f}",
            f"{cell.ratio_min:.2f} - {cell.ratio_max:.2f}",
        )
    return shown
