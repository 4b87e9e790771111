"""`fedopt bench store`: what clients keep between rounds, in memory against on the disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.benchmarks.engine import machine
from simulations.benchmarks.history import append, signature
from simulations.benchmarks.store import measure

app = command("store")


@app.command(epilog="Example:  fedopt bench store --clients 2000 --cohort 200")
def store(
    clients: Annotated[int, typer.Option(min=1, help="SCAFFOLD clients, each with a control of 199,210 numbers.")] = (
        10_000
    ),
    cohort: Annotated[int, typer.Option(min=1, help="How many of them take part in a round.")] = 1_000,
    samples: Annotated[int, typer.Option(min=1, help="Of each client, read once a round in batches of ten.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each, after one to warm up.")] = 12,
    out: Annotated[Path, typer.Option(help="Folder for the history (store.jsonl).")] = Path("runs/bench"),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON in place of a sentence.")] = False,
) -> None:
    """Seconds a round of SCAFFOLD with its controls in shared memory and in a file, in turns, on the same work.

    The file lies under TMPDIR and has no name. Both come to the same bits, which is checked. The defaults fill up to
    8 GiB of memory and as much of the disk.
    """
    if cohort > clients:
        raise InvalidExperiment(f"--cohort {cohort}: there are {clients} clients")
    found = measure(clients, cohort, samples, rounds)
    told = {**asdict(found), "machine": machine()}
    append(out / "store.jsonl", {"date": date.today().isoformat(), **told})
    if json_output:
        print(json.dumps(told))
        return
    print(
        f"{found.clients:,} clients, {found.cohort:,} a round, {found.parameters:,} parameters, "
        f"{found.gib:.1f} GiB of controls: {found.in_memory:.2f} s a round in memory, "
        f"{found.on_disk:.2f} s on the disk; ratio {found.ratio:.2f} ({found.ratio_min:.2f} - {found.ratio_max:.2f})"
    )
    print(f"{signature()}; written to {out}")
