"""`fedopt bench scale`: time and memory of a round as the federation grows.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from fedopt.registry import nearest

if TYPE_CHECKING:
    from simulations.benchmarks.scale import Point

app = command("scale")

ALGORITHMS = ("fedavg", "scaffold")


@app.command(epilog="Example:  fedopt bench scale --algorithm scaffold --largest 1000")
def scale(
    algorithm: Annotated[str, typer.Option(help="fedavg, or scaffold with one vector per client.")] = "fedavg",
    largest: Annotated[
        int, typer.Option(min=10, help="The most clients; the most parameters are a thousand times as many.")
    ] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each, after one to warm up.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for the history (scale.jsonl).")] = Path("runs/bench"),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Measure time and memory of a round: 10 to 10,000 clients, cohorts of 10 to 1,000, 1,000 to 10 million parameters.

    Every client takes two steps of ten samples. The slope compares a line with the one above, on logarithmic axes: 1
    means that time grows in proportion to size, 0 that it does not grow. Memory is that of all processes together.
    """
    from simulations.benchmarks.engine import machine
    from simulations.benchmarks.history import append, signature
    from simulations.benchmarks.scale import measure_all, points, stops_being_linear

    if algorithm not in ALGORITHMS:
        raise InvalidExperiment(f"--algorithm {algorithm}: {nearest(algorithm, ALGORITHMS)}")
    requested = points(largest, algorithm)
    console = Console(stderr=True)
    found = list(track(measure_all(requested, rounds), "measuring", len(requested), console=console, transient=True))
    result = {"points": [asdict(point) for point in found], "machine": machine()}
    append(out / "scale.jsonl", {"date": date.today().isoformat(), **result})
    if json_output:
        print(json.dumps(result))
        return
    Console().print(table(found))
    for sentence in stops_being_linear(found) or ["nowhere worse than linear"]:
        print(sentence)
    print(f"{signature()}; written to {out}")


def table(found: list[Point]) -> Table:
    made = Table("grows", box=None, pad_edge=False, header_style="bold")
    for title in ("clients", "cohort", "parameters", "ms a round", "slope", "MiB"):
        made.add_column(title, justify="right")
    for point in found:
        made.add_row(
            point.axis,
            f"{point.clients:,}",
            f"{point.cohort:,}",
            f"{point.parameters:,}",
            f"{1000 * point.seconds:,.1f}",
            "" if point.slope is None else f"{point.slope:.2f}",
            f"{point.mib:,.0f}",
        )
    return made
