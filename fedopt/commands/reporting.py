"""What the commands that run an experiment share: read it, print what will run, print the result.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedopt.commands.options import ProgressStyle
from fedopt.commands.output import Output
from fedopt.errors import InvalidExperiment
from fedopt.text import count

if TYPE_CHECKING:
    from fedopt.experiment.experiment import Experiment
    from fedopt.runs.history import History
    from fedopt.runs.runner import Observer


def chosen_experiment(
    experiment: Path | None, overrides: list[str], out: Path | None, resume: Path | None
) -> Experiment:
    """The experiment in the file or, with `resume`, that of the run; InvalidExperiment for an override that a resumed
    run may not have."""
    from fedopt.experiment.file import read_experiment
    from fedopt.runs.checkpoint import Checkpoints
    from fedopt.runs.directory import read_run_experiment

    if resume is None:
        return read_experiment(experiment, overrides)
    if experiment is not None or out is not None:
        raise InvalidExperiment("--resume takes the experiment and the place from DIR; leave out the others")
    settings = read_run_experiment(resume, overrides)
    Checkpoints(resume / "checkpoint", settings).check()
    return settings


def introduce(
    experiment: Experiment, output: Output, track: Sequence[str] | None, *, deployed: bool = False
) -> list[Observer]:
    """Prints the experiment and notes about it, and returns the observers that log it and show its progress.

    `deployed` adds the notes that are about a federation of machines.
    """
    from fedopt.runs.round_log import RoundLog
    from fedopt.tracking import trackers

    tracked = trackers(track or ())  # before anything is printed: a missing package is the user's to mend
    for note in experiment.notes(deployed):
        output.note(note)
    output.say(describe_experiment(experiment))
    return [RoundLog(), *tracked, *_progress(output)]  # trackers start before the time left is measured


def _progress(output: Output) -> list[Observer]:
    from rich.console import Console

    from fedopt.runs.progress import LiveProgress, PlainProgress

    match output.progress:
        case ProgressStyle.BAR:
            is_terminal = output.console.is_terminal  # a bar that was asked for is drawn into a pipe as well
            return [LiveProgress(output.console if is_terminal else Console(stderr=True, force_terminal=True))]
        case ProgressStyle.PLAIN:
            return [PlainProgress(output.console)]
    return []


def conclude(history: History, output: Output, observers: Sequence[Observer], as_json: bool) -> None:
    """Prints the result: two lines for people on the console, with `as_json` the summary on standard output."""
    if as_json:
        sys.stdout.write(history.summary.model_dump_json() + "\n")
    from fedopt.tracking.base import Tracker

    for line in describe_result(history).splitlines():
        output.say(line)
    for observer in observers:
        if isinstance(observer, Tracker) and observer.see:
            output.say(f"{observer.name}: {observer.see}")


def describe_experiment(experiment: Experiment) -> str:
    """The experiment in one line."""
    data, local = experiment.data, experiment.local
    work = count(local.epochs, "epoch") if local.epochs else count(local.steps or 0, "step")
    if experiment.algorithm.draws_steps:
        work = "a number of steps that it draws"
    elif local.stragglers:
        work += f" ({local.stragglers:.0%} stragglers)"
    rate = f"lr {local.scaled_lr:g}" + ("" if local.schedule.name == "constant" else f" ({local.schedule.name})")
    if local.groups:
        rate += f" ({count(len(local.groups), 'group')})"
    return (
        f"{experiment.algorithm.name} on {data.source.name}: {count(data.clients, 'client')}, {data.partition.title}, "
        f"{experiment.cohort_size} a round; {experiment.model.name}, {local.optimizer.title} {rate}, {work}, "
        f"batch {local.batch_size}; seed {experiment.run.seed}"
    )


def describe_result(history: History) -> str:
    """The run's result in two lines."""
    from fedopt.runs.display import of_own_models
    from fedopt.runs.quality import best_of, quality

    summary = history.summary
    target = history.experiment.run.target_accuracy
    reached = ""
    if target is not None:
        when = f"in round {summary.rounds_to_target}" if summary.rounds_to_target else "not"
        reached = f"; {target:.2%} {when} reached"
    reached += of_own_models(summary.final)
    return (
        f"{quality(summary.final)}, best {best_of(summary.best)} in round "
        f"{summary.best.round}{reached}; {count(summary.rounds, 'round')} in {summary.seconds:.1f} s\n"
        f"results in {history.directory}"
    )
