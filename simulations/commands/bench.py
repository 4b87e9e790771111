"""`fedopt bench engine`: virtual clients against the plain training loop.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from fedopt.models import MODELS
from fedopt.registry import load_attribute, nearest
from simulations.benchmarks.choices import CLIENTS, COHORT, OPTIMIZERS, PEERS

if TYPE_CHECKING:
    from fedopt.precision import Products
    from simulations.benchmarks.engine import Cell, Peer
    from simulations.benchmarks.profile import Profile

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
        typer.Option(help=f"Also measure another implementation: {', '.join(PEERS)}; may be repeated."),
    ] = None,
    cohort: Annotated[int, typer.Option(min=1, max=CLIENTS, help=f"Clients per round, of {CLIENTS}.")] = COHORT,
    device: Annotated[str, typer.Option(help="Device of both sides: cpu or cuda.")] = "cpu",
    products: Annotated[str, typer.Option(help="Precision of the engine's products: full, tf32 or bf16.")] = "full",
    cuda_graphs: Annotated[bool, typer.Option("--cuda-graphs", help="Record the steps as CUDA graphs.")] = False,
    profiled: Annotated[
        bool, typer.Option("--profile", help="Time the parts of a step and their bounds; some seconds per cell.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each side, after one to warm up.")] = 5,
    out: Annotated[
        Path, typer.Option(help="Folder for history (engine.jsonl), table (engine.md) and figure (engine.svg).")
    ] = Path("runs/bench"),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Compare the engine with the plain training loop: client steps per second on the same work, in turns.

    The plain loop is nn.Module, torch.optim and tensors in memory, one client after the other on one thread, with the
    same minibatches. The engine has one worker per core with one thread each; "stacked 2x5" is two workers of five
    lanes. A ratio above 1 means that the engine is faster. Peers run in your own installation; their start-up is not
    counted. On a GPU, try --device cuda --cohort 100.
    """
    from fedopt.device import choose_device
    from simulations.benchmarks.engine import Setting, as_json, experiment_of, measure
    from simulations.benchmarks.history import signature, write_results, write_table
    from simulations.benchmarks.profile import profile

    _check("--model", model, MODELS)
    _check("--optimizer", optimizer, OPTIMIZERS)
    _check("--peer", peer, PEERS)
    grid = [
        (m, b, o)
        for m in model or ["logistic", "mlp", "cnn", "resnet8"]
        for b in batch or [10, 64]
        for o in optimizer or ["sgd"]
    ]
    peers = {name: cast("Peer", load_attribute(PEERS[name])) for name in peer or ()}
    console = Console(stderr=True)
    setting = Setting(device, cohort, cast("Products", products), cuda_graphs)
    choose_device(experiment_of(*grid[0], setting).run.device)  # reports a missing device before anything is measured
    cells: list[Cell] = []
    profiles: list[Profile] = []
    try:
        for m, b, o in track(grid, "measuring", console=console, transient=True):
            cells.append(measure(m, b, o, repeats=repeats, peers=peers, setting=setting))
            write_table(out, cells)
            if profiled:
                profiles.append(profile(cells[-1]))
    finally:
        if cells:
            write_results(out, cells, profiles)  # what was measured is written even if the rest is interrupted
    if json_output:
        print(json.dumps(as_json(cells) | ({"profiles": [asdict(own) for own in profiles]} if profiled else {})))
        return
    Console().print(table(cells))
    for cell, own in zip(cells, profiles, strict=False):
        Console().print(profile_table(cell, own))
        print(in_words(own))
    print(f"{signature(device)}; written to {out}")


def _check(option: str, given: list[str] | None, known: Iterable[str]) -> None:
    for name in given or ():
        if name not in known:
            raise InvalidExperiment(f"{option} {name}: {nearest(name, known)}")


def table(cells: list[Cell]) -> Table:
    made = Table("model", "batch", "optimizer", "engine", box=None, pad_edge=False, header_style="bold")
    peers = list(dict.fromkeys(name for cell in cells for name in cell.peers))
    for title in ("steps/s", "plain", "ratio", "spread", *(f"to {name}" for name in peers)):
        made.add_column(title, justify="right")
    for cell in cells:
        made.add_row(
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
    return made


def profile_table(cell: Cell, profile: Profile) -> Table:
    """The parts of a step with their times, divided by the number of lanes."""
    title = f"\na step of a lane: {cell.model}, batch {cell.batch}, {cell.optimizer}"
    made = Table("part", box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for column in ("µs", "share", "GFLOP/s", "GB/s"):
        made.add_column(column, justify="right")
    for part in profile.parts:
        gflops = f"{part.gflops:,.0f}" if part.multiplications else ""
        share = f"{part.seconds / profile.step:.0%}"
        made.add_row(part.what, f"{part.seconds * 1e6:,.1f}", share, gflops, f"{part.gigabytes_a_second:,.0f}")
    rest = profile.step - profile.needed
    made.add_row("the rest", f"{rest * 1e6:,.1f}", f"{rest / profile.step:.0%}")
    made.add_row("all of it", f"{profile.step * 1e6:,.1f}", "100%")
    return made


def in_words(profile: Profile) -> str:
    processes = "1 process" if profile.workers == 1 else f"{profile.workers} processes"
    return (
        f"plain loop {profile.plain * 1e6:,.0f} µs; with the parts alone, in {processes}, the ratio would be "
        f"{profile.bound:.1f}; a large product here makes {profile.peak_gflops:,.0f} GFLOP/s, a large copy "
        f"{profile.peak_gigabytes_a_second:,.0f} GB/s"
    )
