"""`fedopt analyze landscape`: a run's loss on lines and planes through its models.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.commands.demonstrating import Clock, DemoJson, present

app = command("landscape")


@app.command(epilog="Example:  fedopt analyze landscape runs/a --clients 5 --other runs/b")
def landscape(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")],
    other: Annotated[
        Path | None,
        typer.Option("--other", metavar="DIR", help="Another run of the same model, for a line to its end."),
    ] = None,
    clients: Annotated[
        int, typer.Option(min=0, help="So many clients' own losses on the plane, from client 0 on.")
    ] = 0,
    points: Annotated[int, typer.Option(min=3, max=401, help="Points on a line and along a side of the plane.")] = 25,
    span: Annotated[float, typer.Option(help="How far the plane reaches, in lengths of the filters; above 0.")] = 1.0,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each loss.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples and of the directions.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the files. [default: analysis/ in DIR]")
    ] = None,
    as_json: DemoJson = False,
) -> None:
    """Draw a run's loss on lines and on a plane through its final model.

    Lines: from the initial to the final model, and with --other to another run's; for each the barrier, how far the
    loss rises above the straight line between its ends. Plane: two random directions in which every filter has the
    length of the model's (Li et al. 2018); crosses are where the test loss and the clients' own losses are least on it.
    """
    from simulations.analysis.landscape import filter_normalized, on_line, on_plane, shown
    from simulations.analysis.of_run import AnalyzedRun

    if not 0 < span < float("inf"):
        raise InvalidExperiment(f"--span {span:g}: give a length above 0")
    import torch

    run = AnalyzedRun.read(directory)
    training = run.objective(samples, seed)
    ends = {"initial to final": (run.initial(), training.start)}
    if other is not None:
        found = AnalyzedRun.read(other).objective(1, seed)
        if found.layout != training.layout:
            raise InvalidExperiment(f"--other {other}: its model has other parameters than that of {directory}")
        ends["final to other"] = (training.start, found.start)
    known = run.history.experiment.data.clients
    if clients > known:
        raise InvalidExperiment(f"--clients {clients}: the run has {known}")
    own = {f"client {client}": run.objective(samples, seed, client) for client in range(clients)}
    losses = {"training": training, "test": run.on_tests(samples, seed)}

    before = time.monotonic()
    training.value(training.start)
    each = time.monotonic() - before
    evaluations = len(losses) * len(ends) * 3 * points // 2 + (len(losses) + len(own)) * points**2
    say = Clock()
    say(f"about {each * evaluations:.0f} s: {evaluations} losses of {each:.2g} s")
    lines = {name: on_line(losses, start, end, points, 0.25) for name, (start, end) in ends.items()}
    say("the plane")
    source = torch.Generator().manual_seed(seed)
    first, second = (filter_normalized(training.layout, training.start, source) for _ in range(2))
    plane = on_plane(losses | own, training.start, (first, second), points, span)
    given = {"samples": samples, "points": points, "span": span, "seed": seed, "other": str(other) if other else None}
    present(shown(str(directory), lines, plane, given), out or directory / "analysis", as_json)
