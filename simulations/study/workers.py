"""Worker processes that carry out runs, with one thread each. If a worker dies, only its current run fails.

Workers are forked from a server process that has loaded torch once, so that a new one starts quickly.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType

from fedopt.errors import Diverged, FedoptError, NotStored
from fedopt.experiment.experiment import Experiment
from fedopt.runs.history import RoundRecord
from fedopt.runs.observers import AnyObserver, Observers
from fedopt.runs.past_runs import DIVERGED
from fedopt.runs.runner import Interrupted, Observer
from fedopt.runs.study import ObserversOfRun
from fedopt.tracking import trackers
from simulations import embedded
from simulations.workers.failure import place


@dataclass(frozen=True)
class Task:
    """A run to start or to resume."""

    name: str
    path: Path
    experiment: Experiment
    resume: bool


@dataclass(frozen=True)
class Progress:
    """Sent after each round: how many rounds of the run are done."""

    rounds: int


@dataclass(frozen=True)
class Ended:
    """Sent when the run has ended: completely or, with `failure`, for this reason not."""

    failure: str | None = None
    interrupted: bool = False
    not_stored: bool = False
    """Whether it failed because its files could not be written, which is not the run's own fault."""


Report = Progress | Ended
OnReport = Callable[[Task, Report], None]


@dataclass
class Worker:
    process: ForkServerProcess
    connection: Connection
    task: Task | None = None


class Workers:
    """A pool of `jobs` processes, started when there is work. A context manager that ends them all when it exits."""

    def __init__(self, jobs: int, track: Sequence[str] = ()) -> None:
        """`track` names the trackers of all runs, as `--track` does."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._jobs, self._track = jobs, tuple(track)
        self._workers: list[Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.connection.close()  # a worker that can no longer report saves its run and ends
        for worker in self._workers:
            worker.process.join(30)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def carry_out(self, tasks: Sequence[Task], on_report: OnReport) -> None:
        """Runs all tasks to their end and calls `on_report` for each report as it arrives."""
        waiting = list(tasks)[::-1]
        self._workers += [self._start_worker() for _ in range(min(self._jobs, len(waiting)) - len(self._workers))]
        while True:
            for index, worker in enumerate(self._workers):
                if worker.task is None and waiting:
                    self._workers[index] = self._assign(worker, waiting.pop())
            busy = {worker.connection: worker for worker in self._workers if worker.task is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                self._receive(busy[connection], on_report)

    def _assign(self, worker: Worker, task: Task) -> Worker:
        """Sends the task to this worker or, if it has died, to a new one; returns the worker that has it."""
        try:
            worker.connection.send(task)
        except OSError:
            worker.connection.close()
            worker = self._start_worker()
            worker.connection.send(task)
        worker.task = task
        return worker

    def _receive(self, worker: Worker, on_report: OnReport) -> None:
        assert worker.task is not None
        try:
            report: Report = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            report = Ended(_exit_reason(worker.process.exitcode))
        on_report(worker.task, report)
        if isinstance(report, Ended):
            worker.task = None

    def _start_worker(self) -> Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._track), daemon=True)
        with _blocking_ctrl_c(), _without_main():
            process.start()
        theirs.close()
        return Worker(process, ours)


class ThisProcess:
    """Stands in for `Workers` where runs need what only this process has: it carries them out one after the other."""

    def __init__(self, track: Sequence[str] = (), observers: ObserversOfRun | None = None) -> None:
        self._track, self._observers = track, observers

    def carry_out(self, tasks: Sequence[Task], on_report: OnReport) -> None:
        for task in tasks:
            own = [] if self._observers is None else self._observers(task.name)
            Observers(own)  # here and not in the run, because what is wrong with them is no failure of the run
            on_report(task, carry_out(task, Forwarder(task, on_report), self._track, own))


class Forwarder:
    """Reports each round to a function. Implements `fedopt.runs.runner.Observer`."""

    def __init__(self, task: Task, on_report: OnReport) -> None:
        self._task, self._on_report = task, on_report

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._on_report(self._task, Progress(rounds_done))

    def round_done(self, record: RoundRecord) -> None:
        self._on_report(self._task, Progress(record.round))

    def ended(self) -> None:
        pass


class Reporter:
    """Reports each round to the parent process. Implements `fedopt.runs.runner.Observer`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._send(rounds_done)

    def round_done(self, record: RoundRecord) -> None:
        self._send(record.round)

    def ended(self) -> None:
        pass

    def _send(self, rounds: int) -> None:
        try:
            self._connection.send(Progress(rounds))
        except BrokenPipeError as error:  # the parent has ended, so stop as for Ctrl-C
            raise KeyboardInterrupt from error


def _work(connection: Connection, track: tuple[str, ...]) -> None:
    """A worker's main loop: receives a task, carries it out and reports, until the connection is closed."""
    with suppress(EOFError, OSError, KeyboardInterrupt):  # the parent has ended, or is about to
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            task: Task = connection.recv()
            connection.send(carry_out(task, Reporter(connection), track))


@contextmanager
def _blocking_ctrl_c() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C until they unblock it. A terminal sends Ctrl-C to all processes,
    and one that is still importing torch would print a traceback."""
    resource_tracker.ensure_running()  # starting it inside the block would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes started in this block do not import the user's script again, which would start the study again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def carry_out(task: Task, reporter: Observer, track: Sequence[str] = (), more: Sequence[AnyObserver] = ()) -> Ended:
    """Starts or resumes the run and returns how it ended; no exception leaves it."""
    try:
        observers = [*trackers(track), *more, reporter]
        if task.resume:
            embedded.resume(task.path, [f"run.rounds={task.experiment.run.rounds}"], observers)
        else:
            embedded.run(task.experiment, task.path, observers)
        return Ended()
    except (Interrupted, KeyboardInterrupt):
        return Ended(interrupted=True)
    except Diverged as error:
        return Ended(DIVERGED + str(error))
    except NotStored as error:
        return Ended(error.reason, not_stored=True)
    except FedoptError as error:
        return Ended(str(error))
    except (
        Exception
    ) as error:  # a bug, ours or in the user's model: it ends this run only, and its traceback is recorded
        where = traceback.format_exc()
        return Ended(f"it failed with {type(error).__name__}: {error}{place(error)}\n{where}")


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code}"


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
