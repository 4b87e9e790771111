"""Runs a study: finished runs are skipped, interrupted ones are resumed, failures are recorded.

All state is in the study's directory, so that the same command on it continues the study.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import tomli_w

from fedopt.errors import InvalidExperiment, NotStored
from fedopt.runs.checkpoint import changes_between
from fedopt.runs.directory import RunDirectory
from fedopt.runs.past_runs import DIVERGED, FAILURE, read_failure, read_run
from fedopt.runs.study import ObserversOfRun
from fedopt.storage.files import replace_file, storing
from simulations.results import PLAN, Plan, PlannedLabels
from simulations.study.checks import checked
from simulations.study.file import Study
from simulations.study.plan import Combination, PlannedRun, planned_runs
from simulations.study.workers import Ended, Progress, Report, Task, ThisProcess, Workers


class Watcher(Protocol):
    """Receives the events of a study while it runs."""

    def note(self, sentence: str) -> None:
        """What is unusual in the study, before it is run."""
        ...

    def begun(self, what: str, rounds_done: int, rounds: int, runs_done: int, runs: int, failed: int) -> None:
        """`failed` of the `runs_done` failed before, and are not repeated."""
        ...

    def round_done(self, name: str, rounds_done: int) -> None:
        """A run has now done `rounds_done` rounds."""
        ...

    def run_done(self, name: str, failure: str | None) -> None: ...

    def ended(self) -> None: ...


@dataclass
class Outcome:
    """The result of running a study."""

    runs: list[PlannedRun] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Runs that failed, each with the reason."""
    interrupted: bool = False
    unchosen: list[str] = field(default_factory=list)
    """Combinations for which every search run failed."""


def conduct(
    study: Study,
    name: str,
    out: Path,
    jobs: int,
    retry: bool,
    watcher: Watcher,
    track: Sequence[str] = (),
    observers: ObserversOfRun | None = None,
) -> Outcome:
    """Runs what is left of the study, with results in `out`, in `jobs` worker processes or, if that is 0, in this one.

    `track` names the trackers of each run; `observers` has an effect in this process only. Raises InvalidExperiment
    before anything is run if the study is invalid.
    """
    plan = checked(study)  # before anything is written or run
    points, searches = plan.combinations, plan.searches
    _check_directory(out)
    _check_same(plan.first, out)
    _write_study(out, study)
    outcome = Outcome()
    with Workers(jobs, track) if jobs else nullcontext(ThisProcess(track, observers)) as workers:
        if searches:
            _run_all("search", plan.first, out, workers, retry, watcher, outcome)
            if outcome.interrupted:
                return outcome
            points = _choose(searches, out, outcome)
        outcome.runs = planned_runs(study, points)
        _check_same(outcome.runs, out)
        with storing(out):
            replace_file(out / PLAN, _plan(study, name, outcome.runs).model_dump_json(indent=1).encode())
        _run_all("runs", outcome.runs, out, workers, retry, watcher, outcome)
    return outcome


def _plan(study: Study, name: str, runs: Sequence[PlannedRun]) -> Plan:
    """plan.json, from which reports read titles and labels."""
    labels: dict[str, PlannedLabels] = {}
    for run in runs:
        searched = {key: str(value) for key, value in run.combination.searched.items()}
        labels[run.name] = PlannedLabels(labels=run.combination.labels, seed=run.seed, searched=searched)
    compare = study.compare if study.grid else ""
    return Plan(title=study.title or name, about=study.about, compare=compare, runs=labels)


def _check_directory(out: Path) -> None:
    """Raises InvalidExperiment unless `out` is new, empty or a study's directory."""
    if out.exists() and not out.is_dir():
        raise InvalidExperiment(f"{out} is a file; name a new directory")
    if out.is_dir() and any(out.iterdir()) and not (out / "study.toml").exists():
        raise InvalidExperiment(f"{out} is not empty, and holds no study; name a new directory")


def _check_same(runs: Sequence[PlannedRun], out: Path) -> None:
    """Raises InvalidExperiment, before anything is changed, if an existing run differs from the planned one."""
    for run in runs:
        if (out / run.name).exists():
            changed = changes_between(read_run(out / run.name).experiment, run.experiment)
            if changed:
                raise InvalidExperiment(
                    f"{out / run.name} is a run of another study: {changed[0]}; name a new directory with --out"
                )


def _write_study(out: Path, study: Study) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidExperiment(f"{out} cannot be made: {error.strerror}") from error
    with storing(out):
        replace_file(out / "study.toml", tomli_w.dumps(study.model_dump(mode="json", exclude_none=True)).encode())


def _run_all(
    what: str,
    runs: Sequence[PlannedRun],
    out: Path,
    workers: Workers | ThisProcess,
    retry: bool,
    watcher: Watcher,
    outcome: Outcome,
) -> None:
    tasks = {task.name: task for run in runs if (task := _remaining_task(run, out, retry, outcome)) is not None}
    rounds = {run.name: run.experiment.run.rounds for run in runs}
    done = {run.name: 0 if run.name in tasks else rounds[run.name] for run in runs}
    failed = sum(run.name in outcome.failures for run in runs)
    watcher.begun(what, sum(done.values()), sum(rounds.values()), len(runs) - len(tasks), len(runs), failed)

    def on_report(task: Task, report: Report) -> None:
        if isinstance(report, Progress):
            watcher.round_done(task.name, report.rounds)
        elif report.interrupted:
            outcome.interrupted = True
            raise KeyboardInterrupt
        elif report.not_stored:  # the other runs would fail in the same way, and this one can be resumed later
            raise NotStored(report.failure or "")
        else:
            _record_failure(task, report, outcome)
            watcher.run_done(task.name, report.failure)

    try:
        workers.carry_out(list(tasks.values()), on_report)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        watcher.ended()


def _remaining_task(run: PlannedRun, out: Path, retry: bool, outcome: Outcome) -> Task | None:
    """What remains to be done for a run; None if it is finished, or failed and is not to be repeated."""
    path = out / run.name
    if not path.exists():
        with storing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        return Task(run.name, path, run.experiment, resume=False)
    past = read_run(path)
    failure = read_failure(path)
    if failure is not None and (not retry or failure.startswith(DIVERGED)):  # divergence is a result, and would repeat
        outcome.failures[run.name] = failure
        return None
    if failure is not None:
        shutil.rmtree(path)
        return Task(run.name, path, run.experiment, resume=False)
    if past.summary is not None and past.summary.rounds >= run.experiment.run.rounds:
        return None
    stopped = past.summary is not None and past.experiment.run.rounds == run.experiment.run.rounds
    return None if stopped else Task(run.name, path, run.experiment, resume=True)


def _record_failure(task: Task, report: Ended, outcome: Outcome) -> None:
    """Writes a failure into the run's directory, so that the next call of the command finds it."""
    if report.failure is None:
        return
    outcome.failures[task.name] = report.failure
    if not task.path.exists():  # it failed before its first round
        RunDirectory.create(task.path, task.experiment).close()
    with storing(task.path):
        replace_file(task.path / FAILURE, (report.failure + "\n").encode())


def _choose(searches: Sequence[Sequence[PlannedRun]], out: Path, outcome: Outcome) -> list[Combination]:
    """Each combination with the values that had the best accuracy on the held-out data; the first of equals."""
    chosen: list[Combination] = []
    for runs in searches:
        scored: list[tuple[float, PlannedRun]] = []
        for run in runs:
            summary = read_run(out / run.name).summary if (out / run.name).is_dir() else None
            if summary is not None:
                scored.append((summary.final.of_clients, run))
        if scored:
            chosen.append(max(scored, key=lambda pair: pair[0])[1].combination)
        else:
            outcome.unchosen.append(runs[0].combination.name)
    return chosen
