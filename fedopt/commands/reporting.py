"""What the commands that run an experiment share: read it, print what will run, print the result."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import read_experiment
from fedopt.runs.checkpoint import Checkpoints
from fedopt.runs.directory import read_run_experiment
from fedopt.runs.history import History
from fedopt.runs.progress import progress
from fedopt.runs.runner import Observer
from fedopt.runs.tensorboard import TensorBoard

log = logging.getLogger("fedopt")


def chosen_experiment(
    experiment: Path | None, overrides: list[str], out: Path | None, resume: Path | None
) -> Experiment:
    """The experiment in the file or, with `resume`, that of the run; InvalidExperiment for an override that a resumed
    run may not have."""
    if resume is None:
        return read_experiment(experiment, overrides)
    if experiment is not None or out is not None:
        raise InvalidExperiment("--resume takes the experiment and the place from DIR; leave out the others")
    settings = read_run_experiment(resume, overrides)
    Checkpoints(resume / "checkpoint", settings).check()
    return settings


def introduce(
    experiment: Experiment, console: Console, quiet: bool, tensorboard: bool = False, *, deployed: bool = False
) -> list[Observer]:
    """Prints the experiment and notes about it, and returns the observers that show its progress.

    `deployed` adds the notes that are about a federation of machines.
    """
    writers: list[Observer] = [TensorBoard()] if tensorboard else []
    if quiet:
        return writers
    for note in experiment.notes(deployed):
        console.print(f"note: {note}", style="yellow", highlight=False, soft_wrap=True)
    console.print(describe_experiment(experiment), highlight=False, soft_wrap=True)
    return [progress(console), *writers]


def reporter(console: Console, quiet: bool) -> Callable[[str], None]:
    """A function that logs a line and, unless `quiet`, prints it."""

    def report(line: str) -> None:
        log.info("%s", line)
        if not quiet:
            console.print(line, highlight=False, soft_wrap=True, markup=False)

    return report


def conclude(history: History, console: Console, quiet: bool, as_json: bool) -> None:
    """Prints the result: two lines for people on the console, with `as_json` the summary on standard output."""
    if as_json:
        sys.stdout.write(history.summary.model_dump_json() + "\n")
    if not quiet:
        console.print(describe_result(history), highlight=False, soft_wrap=True)


def describe_experiment(experiment: Experiment) -> str:
    """The experiment in one line."""
    data, local = experiment.data, experiment.local
    work = f"{local.epochs} epoch{'s' * (local.epochs != 1)}" if local.epochs else f"{local.steps} steps"
    return (
        f"{experiment.algorithm.name} on {data.source.name}: {data.clients} clients, {data.partition.title}, "
        f"{experiment.cohort_size} a round; {experiment.model.name}, {local.optimizer.title} lr {local.lr:g}, {work}, "
        f"batch {local.batch_size}; seed {experiment.run.seed}"
    )


def describe_result(history: History) -> str:
    """The run's result in two lines."""
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
