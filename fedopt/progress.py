"""Watching a run: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedopt.history import RoundRecord
from fedopt.runner import Observer

PLAIN_LINES = 20
"""About how many lines a run prints where there is no terminal to redraw."""


class LiveProgress:
    """One bar that is redrawn: round, accuracy, loss, clients per second, time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
        )
        self._task = self._progress.add_task("run", told="", total=None)
        self._accuracy = ""

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._progress.update(self._task, total=rounds, completed=rounds_done)
        self._progress.start()

    def note(self, sentence: str) -> None:
        self._progress.console.print(sentence, highlight=False, soft_wrap=True)

    def round_done(self, record: RoundRecord) -> None:
        _tell_left_out(self._progress.console, record)
        self._accuracy = _accuracy(record) or self._accuracy
        speed = len(record.cohort) / max(record.seconds, 1e-9)
        told = f"{self._accuracy} loss {record.train_loss:.4f}  {speed:,.0f} clients/s"
        self._progress.update(self._task, completed=record.round, told=told)

    def ended(self) -> None:
        self._progress.stop()


class PlainProgress:
    """A line now and then, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rounds, self._began, self._first = 1, time.perf_counter(), 0

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._rounds, self._first, self._began = rounds, rounds_done, time.perf_counter()

    def note(self, sentence: str) -> None:
        self._console.print(sentence, highlight=False, soft_wrap=True)

    def round_done(self, record: RoundRecord) -> None:
        _tell_left_out(self._console, record)
        every = max(1, self._rounds // PLAIN_LINES)
        if record.round % every and record.round != self._rounds:
            return
        passed = time.perf_counter() - self._began
        left = passed / (record.round - self._first) * (self._rounds - record.round)
        speed = len(record.cohort) / max(record.seconds, 1e-9)
        self._console.print(
            f"round {record.round}/{self._rounds}  {_accuracy(record)} loss {record.train_loss:.4f}  "
            f"{speed:,.0f} clients/s  {left:.0f} s left",
            highlight=False,
        )

    def ended(self) -> None:
        pass


def progress(console: Console) -> Observer:
    """The display that suits where the console writes to."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def _tell_left_out(console: Console, record: RoundRecord) -> None:
    for client, reason in record.left_out.items():
        console.print(
            f"round {record.round}: without client {client}: {reason}", highlight=False, soft_wrap=True, markup=False
        )


def _accuracy(record: RoundRecord) -> str:
    return "" if record.test_accuracy is None else f"accuracy {record.test_accuracy:.2%} "
