"""Worker processes that carry out runs, one thread each. A worker that dies takes one run with it, no more.

They are forked from a server process that has loaded torch once, so that a new one is there at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fedopt.errors import Diverged, FedoptError, NotStored
from fedopt.experiment.experiment import Experiment
from fedopt.runs.history import RoundRecord
from fedopt.runs.past_runs import DIVERGED
from fedopt.runs.runner import Interrupted
from simulations import embedded


@dataclass(frozen=True)
class Task:
    """A run to begin, or to continue."""

    name: str
    path: Path
    experiment: Experiment
    resume: bool


@dataclass(frozen=True)
class Progress:
    """So many rounds of the run are done."""

    rounds: int


@dataclass(frozen=True)
class Ended:
    """The run is over: complete, or for this reason not."""

    failure: str | None = None
    interrupted: bool = False
    not_stored: bool = False
    """Whether it failed because its files could not be written: that is no fault of the run's."""


Report = Progress | Ended
Tell = Callable[[Task, Report], None]


@dataclass
class Worker:
    process: ForkServerProcess
    line: Connection
    task: Task | None = None


class Workers:
    """A pool of `jobs` processes, started as there is work. Use as a context manager; on leaving, none is left."""

    def __init__(self, jobs: int) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._jobs = jobs
        self._workers: list[Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.line.close()  # a worker that cannot report any more saves its run and ends
        for worker in self._workers:
            worker.process.join(30)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def carry_out(self, tasks: Sequence[Task], tell: Tell) -> None:
        """Until all are over; what happens is told as it does."""
        waiting = list(tasks)[::-1]
        self._workers += [self._hire() for _ in range(min(self._jobs, len(waiting)) - len(self._workers))]
        while True:
            for index, worker in enumerate(self._workers):
                if worker.task is None and waiting:
                    self._workers[index] = self._give(worker, waiting.pop())
            busy = {worker.line: worker for worker in self._workers if worker.task is not None}
            if not busy:
                return
            for line in wait(list(busy)):
                assert isinstance(line, Connection)
                self._hear(busy[line], tell)

    def _give(self, worker: Worker, task: Task) -> Worker:
        """Hands the task over: to this worker or, if it has died, to one in its place."""
        try:
            worker.line.send(task)
        except OSError:
            worker.line.close()
            worker = self._hire()
            worker.line.send(task)
        worker.task = task
        return worker

    def _hear(self, worker: Worker, tell: Tell) -> None:
        assert worker.task is not None
        try:
            report: Report = worker.line.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            report = Ended(_cause_of_death(worker.process.exitcode))
        tell(worker.task, report)
        if isinstance(report, Ended):
            worker.task = None

    def _hire(self) -> Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs,), daemon=True)
        with _blocking_ctrl_c():
            process.start()
        theirs.close()
        return Worker(process, ours)


class Reporter:
    """Tells the parent of each round. Implements `fedopt.runs.runner.Observer`."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._tell(rounds_done)

    def round_done(self, record: RoundRecord) -> None:
        self._tell(record.round)

    def ended(self) -> None:
        pass

    def _tell(self, rounds: int) -> None:
        try:
            self._line.send(Progress(rounds))
        except BrokenPipeError as error:  # nobody is there who would want the rest: stop as for Ctrl-C
            raise KeyboardInterrupt from error


def _work(line: Connection) -> None:
    """A worker's life: a task, its reports, the next task; until the line is closed."""
    with suppress(EOFError, OSError, KeyboardInterrupt):  # the parent has gone, or will
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            task: Task = line.recv()
            line.send(carry_out(task, Reporter(line)))


@contextmanager
def _blocking_ctrl_c() -> Iterator[None]:
    """What is started in here does not know Ctrl-C until it unblocks it: the terminal sends it to all processes, and
    one that is still importing torch would answer with a traceback."""
    resource_tracker.ensure_running()  # starting it would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def carry_out(task: Task, reporter: Reporter) -> Ended:
    """Begins or continues the run; whatever happens is how it ended."""
    try:
        if task.resume:
            embedded.resume(task.path, [f"run.rounds={task.experiment.run.rounds}"], [reporter])
        else:
            embedded.run(task.experiment, task.path, [reporter])
        return Ended()
    except (Interrupted, KeyboardInterrupt):
        return Ended(interrupted=True)
    except Diverged as error:
        return Ended(DIVERGED + str(error))
    except NotStored as error:
        return Ended(error.reason, not_stored=True)
    except FedoptError as error:
        return Ended(str(error))
    except Exception as error:  # a fault of ours, or of the user's model: this run's end, told in full, not the others'
        where = traceback.format_exc()
        return Ended(f"it failed with {type(error).__name__}: {error}\n{where}")


def _cause_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code}"


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
