"""Worker processes that train clients: forked once, one thread each, started again if they die.

Only a few numbers a client go through pipes: data and initial vectors are the parent's own pages, and the model of the
round, client states and what clients send up lie in memory that all processes share.

What a client learns does not depend on the worker that trains it or on the clients beside it, and sums do not depend on
the order of arrival. So neither the number of workers nor a worker that dies changes the results.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from clients.lanes.sending import Delivered
from clients.lanes.training import Job
from fedopt.errors import RunStopped
from fedopt.round.federation import Broadcast, Numbers, WorkOrder
from fedopt.runs.interruption import uninterrupted
from fedopt.schedules.plan import RateFactors
from fedopt.vectors.layout import Vectors
from simulations.workers.failure import Failure
from simulations.workers.shared_memory import shared_rows

AHEAD = 2
"""Task groups that a worker has at a time, so that it need not wait for the next."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's mallopt."""

RESTARTS = 3
"""How often a task group is begun again after its worker died."""


class Trainer(Protocol):
    def deliver(self, broadcast: Broadcast, jobs: Sequence[Job]) -> list[Delivered]: ...


@dataclass(frozen=True)
class ClientTask:
    """One client's part of a task group."""

    order: WorkOrder
    state: Mapping[str, int]
    """Rows of the state that the client continues from; none before its first round."""
    new_state: Mapping[str, int]
    """Rows for its new state."""


@dataclass(frozen=True)
class TaskGroup:
    """Clients that one worker trains side by side."""

    number: int
    round: int
    gradient: bool
    survey: bool
    factors: RateFactors
    tasks: tuple[ClientTask, ...]
    slot: int = 0
    """The first of as many slots for what these clients send up."""


@dataclass(frozen=True)
class Report:
    """The outcome of a client task, apart from the vectors."""

    order: WorkOrder
    numbers: Numbers
    bytes_up: int
    up: tuple[str, ...]
    """Names of the vectors in its slot."""


@dataclass
class Worker:
    process: ForkProcess
    pipe: Connection
    groups: dict[int, TaskGroup] = field(default_factory=dict)


@dataclass(frozen=True)
class SharedBuffers:
    """Memory that all processes of a worker pool see: the model of the round, and what clients send up."""

    x: Tensor
    """[P]"""
    down: Mapping[str, Tensor]
    """[P] each"""
    up: Mapping[str, Tensor]
    """[slots, P] each"""
    state: Mapping[str, Tensor]
    """Client states, [rows, P] each"""

    @classmethod
    def allocate(
        cls, like: Tensor, down: Sequence[str], up: Sequence[str], slots: int, state: Mapping[str, Tensor]
    ) -> SharedBuffers:
        """For models like this one, and vectors of these names."""
        return cls(
            x=shared_rows(1, like)[0],
            down={name: shared_rows(1, like)[0] for name in down},
            up={name: shared_rows(slots, like) for name in up},
            state=state,
        )


class WorkerPool:
    """Workers, and the task groups that each of them has."""

    def __init__(
        self,
        workers: int,
        lanes: int,
        buffers: SharedBuffers,
        initial: Vectors,
        parts: Sequence[np.ndarray],
        make_trainer: Callable[[], Trainer],
    ) -> None:
        """`initial` is the state before a client's first round, `parts` are each client's samples.

        A task group has at most `lanes` clients; the buffers have slots for AHEAD groups for each worker.
        """
        self._buffers, self._initial, self._parts = buffers, initial, parts
        self._make_trainer = make_trainer
        self._slots = [lanes * place for place in range(AHEAD * workers)]
        self._context = multiprocessing.get_context("fork")
        self._workers = [self._start() for _ in range(workers)]
        self._deaths: dict[int, int] = {}

    def carry_out(
        self, broadcast: Broadcast, groups: Sequence[TaskGroup]
    ) -> Generator[tuple[Report, Vectors], None, None]:
        """Each client's report, and the vectors that it sends up, as they arrive.

        Read the vectors before asking for the next. Closed early, this waits for the groups that are under way, and
        drops them.
        """
        self._buffers.x.copy_(broadcast.x)
        for name, vector in broadcast.down.items():
            self._buffers.down[name].copy_(vector)
        left, free = deque(groups), list(self._slots)
        try:
            while left or any(worker.groups for worker in self._workers):
                for worker in self._workers:
                    if left and len(worker.groups) < AHEAD:  # one each in turn
                        self._send(worker, replace(left.popleft(), slot=free.pop()))
                if left and any(len(worker.groups) < AHEAD for worker in self._workers):
                    continue
                for group, reports in self._received():
                    for slot, report in enumerate(reports, start=group.slot):
                        yield report, {name: self._buffers.up[name][slot] for name in report.up}
                    free.append(group.slot)
        finally:
            while any(worker.groups for worker in self._workers):
                self._received()

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()  # which ends it
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()

    def _send(self, worker: Worker, group: TaskGroup) -> None:
        with uninterrupted():
            worker.groups[group.number] = group
            with suppress(OSError):  # if it has died, `_received` finds out and begins its groups again
                worker.pipe.send(group)

    def _received(self) -> list[tuple[TaskGroup, list[Report]]]:
        """Waits for a worker to finish a group; empty if one had to be replaced instead.

        Ctrl-C strikes while it waits, never between a message and its bookkeeping.
        """
        busy = {worker.pipe: place for place, worker in enumerate(self._workers) if worker.groups}
        ready = wait(list(busy))
        with uninterrupted():
            return self._read(ready, busy)

    def _read(self, ready: Sequence[object], busy: Mapping[Connection, int]) -> list[tuple[TaskGroup, list[Report]]]:
        done: list[tuple[TaskGroup, list[Report]]] = []
        for pipe in ready:
            assert isinstance(pipe, Connection)
            worker = self._workers[busy[pipe]]
            try:
                answer = pipe.recv()
            except (EOFError, OSError):
                self._replace(busy[pipe])
                continue
            number, outcome = answer
            group = worker.groups.pop(number)
            if isinstance(outcome, Failure):
                outcome.raise_again()
            done.append((group, outcome))
        return done

    def _replace(self, place: int) -> None:
        """A new worker with the groups of one that died."""
        dead = self._workers[place]
        dead.pipe.close()
        dead.process.join()
        first = next(iter(dead.groups.values()))
        self._deaths[first.number] = self._deaths.get(first.number, 0) + 1
        if self._deaths[first.number] > RESTARTS:
            dead.groups.clear()
            clients = ", ".join(str(task.order.client) for task in first.tasks)
            raise RunStopped(
                f"a worker process died {RESTARTS + 1} times over clients {clients} "
                f"(exit status {dead.process.exitcode}; -9 is often a lack of memory); fewer run.workers or a smaller "
                "run.lanes need less of it"
            )
        worker = self._workers[place] = self._start()
        for group in dead.groups.values():
            self._send(worker, group)

    def _start(self) -> Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=self._work, args=(theirs,), daemon=True)
        with warnings.catch_warnings():
            # A process with threads (a progress display) may be forked safely where the fork only computes.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        return Worker(process, ours)

    # What follows runs in the worker.

    def _work(self, pipe: Connection) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pool
        _keep_open_only(pipe)
        _keep_freed_memory()
        _let_others_wake_first()
        _collect_garbage_between_groups()
        torch.set_num_threads(1)
        trainer: Trainer | None = None
        while True:
            try:
                group = pipe.recv()
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone, or has closed the pool
            try:
                trainer = trainer or self._make_trainer()
                outcome: list[Report] | Failure = self._train(trainer, group)
            except Exception as error:  # raised again by the parent
                outcome = Failure.of(error)
            try:
                pipe.send((group.number, outcome))
            except OSError:
                os._exit(0)  # the parent is gone
            gc.collect()

    def _train(self, trainer: Trainer, group: TaskGroup) -> list[Report]:
        buffers = self._buffers
        broadcast = Broadcast(group.round, buffers.x, buffers.down, group.gradient, group.survey, group.factors)
        jobs = [
            Job(
                task.order,
                self._parts[task.order.client],
                {name: buffers.state[name][row] for name, row in task.state.items()} or self._initial,
                up_buffers={name: slots[slot] for name, slots in buffers.up.items()},
                state_buffers={name: buffers.state[name][row] for name, row in task.new_state.items()},
            )
            for slot, task in enumerate(group.tasks, start=group.slot)
        ]
        delivered = {one.result.order.client: one for one in trainer.deliver(broadcast, jobs)}
        return [_report(delivered[task.order.client]) for task in group.tasks]


def _report(delivered: Delivered) -> Report:
    result = delivered.result
    return Report(result.order, result.numbers, delivered.bytes_up, tuple(result.up))


def _keep_open_only(pipe: Connection) -> None:
    """Closes every other file of the parent's: a lock, or the pipe of another worker, must not outlive it."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != pipe.fileno():
            try:
                os.close(int(name))
            except OSError:
                continue  # that of the listing itself
    sys.stdin = open(os.devnull)  # noqa: SIM115  (it lives as long as the process)


def _keep_freed_memory() -> None:
    """Makes malloc reuse large blocks. Returned ones would get new pages in every round, which takes time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def _let_others_wake_first() -> None:
    """Keeps Linux from preempting the parent when this process gets work: other workers still wait for theirs."""
    if hasattr(os, "SCHED_BATCH"):
        with suppress(PermissionError):  # where a sandbox forbids it, rounds start a little later
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _collect_garbage_between_groups() -> None:
    """Garbage is collected between task groups; objects from before the fork are never looked at."""
    gc.freeze()
    gc.disable()
