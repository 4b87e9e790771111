"""`fedopt bench engine`: virtual clients against the plain training loop."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from fedopt.models import MODELS
from fedopt.registry import nearest
from simulations.benchmarks.engine import OPTIMIZERS, Cell, as_json, measure
from simulations.benchmarks.history import leave, note, signature
from simulations.benchmarks.peers import PEERS

app = command("engine")


@app.command(epilog="Example:  fedopt bench engine --model mlp --batch 10 --optimizer adam --peer deepcopy-dataloader")
def engine(
    model: Annotated[
        list[str] | None, typer.Option(help="Model to measure; may be repeated. [logistic, mlp, cnn, resnet8]")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; may be repeated. [10, 64]")] = None,
    optimizer: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}; may be repeated. [sgd]")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help=f"Another way to do the same work: {', '.join(PEERS)}; may be repeated."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each, after one to warm up.")] = 5,
    out: Annotated[
        Path, typer.Option(help="Folder for history (engine.jsonl), table (engine.md) and figure (engine.svg).")
    ] = Path("runs/bench"),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Client steps per second of this engine and of the plain loop on the same work, interleaved.

    The plain loop is nn.Module, torch.optim and tensors in memory, one client after the other on one thread, on the
    same minibatches; the engine has a worker of one thread for each core, each with so many lanes (stacked 2x5). A
    ratio above 1 means that the engine is faster. Peers are run from your own installation, after they have started.
    """
    _check("--model", model, MODELS)
    _check("--optimizer", optimizer, OPTIMIZERS)
    _check("--peer", peer, PEERS)
    grid = [
        (m, b, o)
        for m in model or ["logistic", "mlp", "cnn", "resnet8"]
        for b in batch or [10, 64]
        for o in optimizer or ["sgd"]
    ]
    peers = {name: PEERS[name] for name in peer or ()}
    console = Console(stderr=True)
    cells: list[Cell] = []
    try:
        for m, b, o in track(grid, "measuring", console=console, transient=True):
            cells.append(measure(m, b, o, repeats=repeats, peers=peers))
            note(out, cells)
    finally:
        if cells:
            leave(out, cells)  # what is measured stays, whatever ends the rest
    if json_output:
        print(json.dumps(as_json(cells)))
        return
    Console().print(table(cells))
    print(f"{signature()}; written to {out}")


def _check(option: str, given: list[str] | None, known: Iterable[str]) -> None:
    for name in given or ():
        if name not in known:
            raise InvalidExperiment(f"{option} {name}: {nearest(name, known)}")


def table(cells: list[Cell]) -> Table:
    shown = Table("model", "batch", "optimizer", "engine", box=None, pad_edge=False, header_style="bold")
    peers = list(dict.fromkeys(name for cell in cells for name in cell.peers))
    for title in ("steps/s", "plain", "ratio", "spread", *(f"to {name}" for name in peers)):
        shown.add_column(title, justify="right")
    for cell in cells:
        shown.add_row(
            cell.model,
            str(cell.batch),
            cell.optimizer,
            f"{cell.engine} {cell.workers}x{cell.lanes}",
            f"{cell.steps_per_second:,.0f}",
            f"{cell.plain_steps_per_second:,.0f}",
            f"{cell.ratio:.2f}",
            f"{cell.ratio_min:.1f}-{cell.ratio_max:.1f}",
            *(f"{cell.peers[name]:.2f}" for name in peers),
        )
    return shown
