"""`fedopt run`: one experiment as virtual clients."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from fedopt.commands.options import (
    AsJson,
    ExperimentFile,
    LogFile,
    Out,
    Overrides,
    Progress,
    ProgressStyle,
    Quiet,
    Resume,
    TensorBoardFiles,
    Track,
    Verbose,
    command,
)
from fedopt.commands.output import set_up_output
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
    track: Track = None,
    tensorboard: TensorBoardFiles = False,
    progress: Progress = ProgressStyle.AUTO,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    log_file: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Run one experiment as virtual clients on this machine.

    Writes experiment.toml, metrics.jsonl, model.safetensors, summary.json and checkpoint/ into the run's
    directory. Ctrl-C saves a checkpoint before it stops. --resume continues a run that was stopped or killed.
    """
    is_first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes, only rank 0 prints and logs
    settings = chosen_experiment(experiment, overrides or [], out, resume)
    output = set_up_output(quiet, verbose, log_file, progress) if is_first else set_up_output(quiet=True)
    observers = introduce(settings, output, track)

    from fedopt.runs import api

    if resume is not None:
        history = api.resume(resume, overrides or [], observers, engine)
    else:
        history = api.run(settings, out, observers, engine)
    conclude(history, output, observers, as_json)
