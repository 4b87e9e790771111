"""What every command that runs an experiment does around it: choose, announce, conclude."""

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
    """The experiment of the file, or of the run that is resumed, if what was changed of that may change."""
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
    """Says what is about to run, among machines if `deployed`; the observers that show how it goes."""
    writers: list[Observer] = [TensorBoard()] if tensorboard else []
    if quiet:
        return writers
    for note in experiment.notes(deployed):
        console.print(f"note: {note}", style="yellow", highlight=False, soft_wrap=True)
    console.print(describe(experiment), highlight=False, soft_wrap=True)
    return [progress(console), *writers]


def teller(console: Console, quiet: bool) -> Callable[[str], None]:
    """Says lines to whoever watches, and to the log."""

    def say(line: str) -> None:
        log.info("%s", line)
        if not quiet:
            console.print(line, highlight=False, soft_wrap=True, markup=False)

    return say


def conclude(history: History, console: Console, quiet: bool, as_json: bool) -> None:
    """Says how it ended, to people and to scripts."""
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
