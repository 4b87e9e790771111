"""`fedopt run`: one experiment as virtual clients in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedopt.commands.options import ExperimentFile, Overrides, command
from fedopt.errors import InvalidExperiment
from fedopt.experiment import Experiment
from fedopt.experiment_file import read_experiment
from fedopt.history import History
from fedopt.progress import progress
from fedopt.runner import Observer
from fedopt.runs import read_run_experiment

app = command("run")


@app.command(epilog="Example:  fedopt run --set algorithm.name=scaffold --set run.rounds=100 --out runs/scaffold")
def run(
    experiment: ExperimentFile = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="A new directory for the run; by default below runs/."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="DIR", help="Continue the run in DIR from its last checkpoint."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")] = False,
) -> None:
    """Run one experiment as virtual clients in this process.

    Writes experiment.toml, metrics.jsonl, model.safetensors, summary.json and checkpoint/ into the run's
    directory. Ctrl-C saves first and says how to go on; so does a run that was killed, with --resume.
    """
    if resume is not None and (experiment is not None or out is not None):
        raise InvalidExperiment("--resume takes the experiment and the place from DIR; leave out the others")
    settings = (
        read_run_experiment(resume, overrides or [])
        if resume is not None
        else read_experiment(experiment, overrides or [])
    )
    console = Console(stderr=True)
    observers: list[Observer] = []
    if not quiet:
        for note in settings.notes():
            console.print(f"note: {note}", style="yellow", highlight=False, soft_wrap=True)
        console.print(describe(settings), highlight=False, soft_wrap=True)
        observers.append(progress(console))

    from simulations.embedded import resume as resume_run
    from simulations.embedded import run as start_run

    history = (
        resume_run(resume, overrides or [], observers) if resume is not None else start_run(settings, out, observers)
    )
    if as_json:
        sys.stdout.write(history.summary.model_dump_json() + "\n")
    if not quiet:
        console.print(tell(history), highlight=False, soft_wrap=True)


def describe(experiment: Experiment) -> str:
    """What is about to run, in one line."""
    data, local = experiment.data, experiment.local
    skew = f"({data.alpha:g})" if "dirichlet" in data.partition or data.partition == "quantity" else ""
    work = f"{local.epochs} epoch{'s' * (local.epochs != 1)}" if local.epochs else f"{local.steps} steps"
    return (
        f"{experiment.algorithm.name} on {data.name}: {data.clients} clients, {data.partition}{skew}, "
        f"{experiment.cohort_size} a round; {experiment.model.name}, {local.optimizer} lr {local.lr:g}, {work}, "
        f"batch {local.batch_size}; seed {experiment.run.seed}"
    )


def tell(history: History) -> str:
    """How it ended, in two lines."""
    summary = history.summary
    target = history.experiment.run.target_accuracy
    reached = ""
    if target is not None:
        when = f"in round {summary.rounds_to_target}" if summary.rounds_to_target else "not"
        reached = f"; {target:.2%} {when} reached"
    return (
        f"test accuracy {summary.final.test_accuracy:.2%}, best {summary.best.test_accuracy:.2%} in round "
        f"{summary.best.round}{reached}; {summary.rounds} rounds in {summary.seconds:.1f} s\n"
        f"results in {history.directory}"
    )
