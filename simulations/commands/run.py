"""`fedopt run`: one experiment as virtual clients."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

from fedopt.commands.options import AsJson, ExperimentFile, Out, Overrides, Quiet, Resume, TensorBoardFiles, command
from fedopt.commands.reporting import chosen_experiment, conclude, introduce

app = command("run")


@app.command(epilog="Example:  fedopt run --set algorithm.name=scaffold --set run.rounds=100 --out runs/scaffold")
def run(
    experiment: ExperimentFile = None,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = None,
    engine: Annotated[
        str,
        typer.Option("--engine", metavar="NAME", help="embedded, on this machine, or ray, Flower's simulation."),
    ] = "embedded",
    tensorboard: TensorBoardFiles = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run one experiment as virtual clients on this machine.

    Writes experiment.toml, metrics.jsonl, model.safetensors, summary.json and checkpoint/ into the run's
    directory. Ctrl-C saves a checkpoint before it stops. --resume continues a run that was stopped or killed.
    """
    quiet = quiet or os.environ.get("RANK", "0") != "0"  # of torchrun's processes, only rank 0 prints
    settings = chosen_experiment(experiment, overrides or [], out, resume)
    console = Console(stderr=True)
    observers = introduce(settings, console, quiet, tensorboard)

    from fedopt.runs import api

    if resume is not None:
        history = api.resume(resume, overrides or [], observers, engine)
    else:
        history = api.run(settings, out, observers, engine)
    conclude(history, console, quiet, as_json)
