"""`fedopt bench drift`: the cost of measuring client drift.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
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
from fedopt.errors import InvalidExperiment
from fedopt.models import MODELS
from fedopt.registry import nearest

if TYPE_CHECKING:
    from simulations.benchmarks.drift import Cost

app = command("drift")


@app.command(epilog="Example:  fedopt bench drift --model mlp --batch 10 --repeats 15")
def drift(
    model: Annotated[
        list[str] | None, typer.Option(help="Model to measure; may be repeated. [logistic, mlp, cnn]")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; may be repeated. [10, 64]")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Local epochs per round. [default: those of an experiment]")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each side, after one to warm up.")] = 9,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Compare rounds with and without measuring client drift: ratios of their seconds, on one thread.

    "updates" is the ratio for the measures of every round, "gradients" that for a round with full gradients, which
    is one in metrics.drift_every. The more local work a round has, the closer both are to 1.
    """
    from fedopt.optimizers.local import EPOCHS
    from simulations.benchmarks.drift import measure_cost
    from simulations.benchmarks.engine import machine

    epochs = epochs or EPOCHS
    for name in model or ():
        if name not in MODELS:
            raise InvalidExperiment(f"--model {name}: {nearest(name, MODELS)}")
    grid = [(m, b) for m in model or ["logistic", "mlp", "cnn"] for b in batch or [10, 64]]
    console = Console(stderr=True)
    costs = [measure_cost(m, b, epochs, repeats) for m, b in track(grid, "measuring", console=console, transient=True)]
    if json_output:
        print(json.dumps({"costs": [asdict(cost) for cost in costs], "machine": machine()}))
        return
    Console().print(table(costs))
    about = machine()
    print(f"{date.today()}, {about['processor']}, {about['cores']} cores, torch {about['torch']}, 1 thread,", end=" ")
    print(f"{epochs} local epochs")


def table(costs: list[Cost]) -> Table:
    made = Table("model", "batch", box=None, pad_edge=False, header_style="bold")
    for title in ("s a round", "updates", "spread", "gradients"):
        made.add_column(title, justify="right")
    for cost in costs:
        made.add_row(
            cost.model,
            str(cost.batch),
            f"{cost.round_seconds:.3f}",
            f"{cost.updates:.3f}",
            f"{cost.updates_min:.3f} - {cost.updates_max:.3f}",
            f"{cost.gradients:.2f}",
        )
    return made
