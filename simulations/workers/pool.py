"""Worker processes that train clients: forked once, one thread each, started again if they die.

What is large never travels: data and initial vectors are the parent's own pages, the model of the round, what clients
keep and what they send up lie in memory that all processes share. Messages are a few numbers a client.

What a client learns does not depend on who trains it or beside whom, and sums do not depend on the order of arrival,
so the number of workers, and a worker that dies under way, leave no trace in the results.
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

import torch
from torch import Tensor

from clients.lanes.training import Job, Result
from fedopt.errors import FedoptError, RunStopped
from fedopt.round.federation import WorkOrder
from fedopt.runs.interruption import uninterrupted
from fedopt.vectors.layout import Vectors
from simulations.workers.shared_memory import shared_rows

AHEAD = 2
"""Pieces of work that a worker has at a time, so that it need not wait for the next."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's mallopt."""

LIVES = 3
"""How often a piece of work is begun again after its worker died."""


class Trainer(Protocol):
    def train(self, jobs: Sequence[Job]) -> list[Result]: ...


@dataclass(frozen=True)
class Errand:
    """One client's part of a piece of work."""

    client: int
    accepted: int | None
    kept: Mapping[str, int]
    """Rows of what the client goes on from; none before its first round."""
    keep: Mapping[str, int]
    """Rows for what it keeps from now on."""


@dataclass(frozen=True)
class Piece:
    """Clients that one worker trains side by side."""

    number: int
    round: int
    gradient: bool
    errands: tuple[Errand, ...]
    desk: int = 0
    """Where on the desk what they send up goes: the first of as many slots."""


@dataclass(frozen=True)
class Report:
    """What an errand came to, but for the vectors."""

    client: int
    samples: int
    steps: int
    loss: float
    told: Mapping[str, float]
    up: tuple[str, ...]
    """Names of the vectors in its slot."""


@dataclass
class Worker:
    process: ForkProcess
    line: Connection
    pieces: dict[int, Piece] = field(default_factory=dict)


@dataclass(frozen=True)
class Desk:
    """The shared memory through which a crew is told what to do, and answers."""

    x: Tensor
    """[P]"""
    down: Mapping[str, Tensor]
    """[P] each"""
    up: Mapping[str, Tensor]
    """[slots, P] each"""

    @classmethod
    def lay_out(cls, like: Tensor, down: Sequence[str], up: Sequence[str], slots: int) -> Desk:
        """For models like this one, and vectors of these names."""
        return cls(
            x=shared_rows(1, like)[0],
            down={name: shared_rows(1, like)[0] for name in down},
            up={name: shared_rows(slots, like) for name in up},
        )


class Crew:
    """Workers and the pieces of work they have."""

    def __init__(
        self,
        workers: int,
        lanes: int,
        desk: Desk,
        kept: Mapping[str, Tensor],
        initial: Vectors,
        parts: Sequence[object],
        make_trainer: Callable[[], Trainer],
    ) -> None:
        """`kept` are rows [rows, P] of what clients keep, `initial` what they keep before their first round.

        A piece of work is for at most `lanes` clients; the desk has slots for AHEAD of them for each worker.
        """
        self._desk, self._kept, self._initial, self._parts = desk, kept, initial, parts
        self._make_trainer = make_trainer
        self._desks = [lanes * place for place in range(AHEAD * workers)]
        self._context = multiprocessing.get_context("fork")
        self._workers = [self._start() for _ in range(workers)]
        self._deaths: dict[int, int] = {}

    def carry_out(self, order: WorkOrder, pieces: Sequence[Piece]) -> Generator[tuple[Report, Vectors], None, None]:
        """Each client's report, and what it sends up, as they come; `order` stands for what is common to them.

        Vectors are to be read before the next is asked for. Left early, this waits for the pieces that are under way,
        and drops them.
        """
        self._desk.x.copy_(order.x)
        for name, vector in order.down.items():
            self._desk.down[name].copy_(vector)
        left, free = deque(pieces), list(self._desks)
        try:
            while left or any(worker.pieces for worker in self._workers):
                for worker in self._workers:
                    if left and len(worker.pieces) < AHEAD:  # one each in turn
                        self._send(worker, replace(left.popleft(), desk=free.pop()))
                if left and any(len(worker.pieces) < AHEAD for worker in self._workers):
                    continue
                for piece, reports in self._received():
                    for slot, report in enumerate(reports, start=piece.desk):
                        yield report, {name: self._desk.up[name][slot] for name in report.up}
                    free.append(piece.desk)
        finally:
            while any(worker.pieces for worker in self._workers):
                self._received()

    def dismiss(self) -> None:
        for worker in self._workers:
            worker.line.close()  # which ends it
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()

    def _send(self, worker: Worker, piece: Piece) -> None:
        with uninterrupted():
            worker.pieces[piece.number] = piece
            with suppress(OSError):  # if it has died, `_received` finds out and begins its pieces again
                worker.line.send(piece)

    def _received(self) -> list[tuple[Piece, list[Report]]]:
        """Waits for a worker to finish a piece; nothing if one had to be replaced instead.

        Ctrl-C strikes while it waits, never between a message and the note of it.
        """
        busy = {worker.line: place for place, worker in enumerate(self._workers) if worker.pieces}
        ready = wait(list(busy))
        with uninterrupted():
            return self._read(ready, busy)

    def _read(self, ready: Sequence[object], busy: Mapping[Connection, int]) -> list[tuple[Piece, list[Report]]]:
        done: list[tuple[Piece, list[Report]]] = []
        for line in ready:
            assert isinstance(line, Connection)
            worker = self._workers[busy[line]]
            try:
                answer = line.recv()
            except (EOFError, OSError):
                self._replace(busy[line])
                continue
            number, outcome = answer
            piece = worker.pieces.pop(number)
            if isinstance(outcome, Exception):
                raise outcome
            done.append((piece, outcome))
        return done

    def _replace(self, place: int) -> None:
        """A new worker with the pieces of one that died."""
        dead = self._workers[place]
        dead.line.close()
        dead.process.join()
        first = next(iter(dead.pieces.values()))
        self._deaths[first.number] = self._deaths.get(first.number, 0) + 1
        if self._deaths[first.number] > LIVES:
            dead.pieces.clear()
            clients = ", ".join(str(errand.client) for errand in first.errands)
            raise RunStopped(
                f"a worker process died {LIVES + 1} times over clients {clients} "
                f"(exit status {dead.process.exitcode}; -9 is often a lack of memory); fewer run.workers or a smaller "
                "run.lanes need less of it"
            )
        worker = self._workers[place] = self._start()
        for piece in dead.pieces.values():
            self._send(worker, piece)

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

    def _work(self, line: Connection) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who says when it is over
        _keep_open_only(line)
        _keep_freed_memory()
        _let_others_wake_first()
        _collect_garbage_when_told()
        torch.set_num_threads(1)
        trainer: Trainer | None = None
        while True:
            try:
                piece = line.recv()
            except (EOFError, OSError):
                os._exit(0)  # whoever started this is gone, or needs it no longer
            try:
                trainer = trainer or self._make_trainer()
                outcome: list[Report] | Exception = self._train(trainer, piece)
            except Exception as error:  # raised again by the parent
                outcome = _portable(error)
            try:
                line.send((piece.number, outcome))
            except OSError:
                os._exit(0)  # nobody waits for it
            gc.collect()

    def _train(self, trainer: Trainer, piece: Piece) -> list[Report]:
        jobs = [
            Job(
                WorkOrder(piece.round, errand.client, errand.accepted, self._desk.x, self._desk.down, piece.gradient),
                self._parts[errand.client],  # type: ignore[arg-type]
                {name: self._kept[name][row] for name, row in errand.kept.items()} or self._initial,
                desk={name: slots[slot] for name, slots in self._desk.up.items()},
                shelf={name: self._kept[name][row] for name, row in errand.keep.items()},
            )
            for slot, errand in enumerate(piece.errands, start=piece.desk)
        ]
        results = {result.order.client: result for result in trainer.train(jobs)}
        return [_report(results[errand.client]) for errand in piece.errands]


def _report(result: Result) -> Report:
    return Report(result.order.client, result.samples, result.steps, result.loss, result.told, tuple(result.up))


def _keep_open_only(line: Connection) -> None:
    """Closes every other file of the parent's: a lock, or the line of another worker, must not outlive it."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != line.fileno():
            try:
                os.close(int(name))
            except OSError:
                continue  # that of the listing itself
    sys.stdin = open(os.devnull)  # noqa: SIM115  (it lives as long as the process)


def _keep_freed_memory() -> None:
    """Has malloc reuse large blocks in place of returning them, whose pages would have to be made anew each round."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def _let_others_wake_first() -> None:
    """Has Linux not put this process in the parent's place when it is given work: there are others to be told yet."""
    if hasattr(os, "SCHED_BATCH"):
        with suppress(PermissionError):  # where a sandbox forbids it, rounds start a little later
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _collect_garbage_when_told() -> None:
    """What was there before the fork is never garbage; what steps leave behind waits until a piece is delivered."""
    gc.freeze()
    gc.disable()


def _portable(error: Exception) -> Exception:
    """The error if it can travel, or one that says the same."""
    if isinstance(error, FedoptError):
        return error
    return RuntimeError(f"{type(error).__name__} in a worker process: {error}")
