"""`fedopt bench store`: client states between rounds, in memory against on disk.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment

app = command("store")


@app.command(epilog="Example:  fedopt bench store --clients 2000 --cohort 200")
def store(
    clients: Annotated[int, typer.Option(min=1, help="SCAFFOLD clients, each with 199,210 parameters.")] = (10_000),
    cohort: Annotated[int, typer.Option(min=1, help="Clients per round.")] = 1_000,
    samples: Annotated[int, typer.Option(min=1, help="Samples per client, one epoch in batches of ten.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each, after one to warm up.")] = 12,
    out: Annotated[Path, typer.Option(help="Folder for the history (store.jsonl).")] = Path("runs/bench"),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of a sentence.")] = False,
) -> None:
    """Compare SCAFFOLD rounds with the controls in shared memory and in a file: seconds on the same work, in turns.

    The file is an unnamed one under TMPDIR. The command checks that both give the same bits. With the defaults it
    needs up to 8 GiB of memory and as much disk space.
    """
    from simulations.benchmarks.engine import machine
    from simulations.benchmarks.history import append, signature
    from simulations.benchmarks.store import measure

    if cohort > clients:
        raise InvalidExperiment(f"--cohort {cohort}: there are {clients} clients")
    found = measure(clients, cohort, samples, rounds)
    result = {**asdict(found), "machine": machine()}
    append(out / "store.jsonl", {"date": date.today().isoformat(), **result})
    if json_output:
        print(json.dumps(result))
        return
    print(
        f"{found.clients:,} clients, {found.cohort:,} a round, {found.parameters:,} parameters, "
        f"{found.gib:.1f} GiB of controls: {found.in_memory:.2f} s a round in memory, "
        f"{found.on_disk:.2f} s on the disk; ratio {found.ratio:.2f} ({found.ratio_min:.2f} - {found.ratio_max:.2f})"
    )
    print(f"{signature()}; written to {out}")
