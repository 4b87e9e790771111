"""`fedopt federation`: a server and its clients on this machine, to try out a deployment."""

from __future__ import annotations

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

app = command("federation")

PARTICIPATION = ("run.participation=", "run.cohort=")


@app.command(epilog="Example:  fedopt federation --clients 4 --set algorithm.name=scaffold --set run.rounds=20")
def federation(
    experiment: ExperimentFile = None,
    clients: Annotated[
        int | None,
        typer.Option(
            "--clients", metavar="N", min=1, help="Number of clients. The default without an experiment is 4."
        ),
    ] = None,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = None,
    track: Track = None,
    tensorboard: TensorBoardFiles = False,
    progress: Progress = ProgressStyle.AUTO,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    log_file: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a real federation on this machine: a server, and a process for each client, over gRPC.

    This is what `fedopt server` and `fedopt client` do on many machines, with the same numbers as `fedopt run`. The
    run's directory has the clients' output in clients.log and their state in client-state. Without an experiment,
    four clients take part in every round.
    """
    changes = list(overrides or [])
    if clients is not None:
        changes.append(f"data.clients={clients}")
    elif experiment is None and resume is None and not any(text.startswith("data.clients=") for text in changes):
        changes.append("data.clients=4")
    if experiment is None and resume is None and not any(text.startswith(PARTICIPATION) for text in changes):
        changes.append("run.participation=1.0")
    settings = chosen_experiment(experiment, changes, out, resume)
    output = set_up_output(quiet, verbose, log_file, progress)
    observers = introduce(settings, output, track, deployed=True)

    from server.local_clients import LocalClients

    with LocalClients() as local_clients:
        from server.deployment import open_run
        from server.local_federation import run_locally

        with open_run(settings, out, resume, changes) as (directory, setup):
            history = run_locally(local_clients, directory, setup, output.say, observers)
    conclude(history, output, observers, as_json)
