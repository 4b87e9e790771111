"""A run's progress: a bar that is redrawn, or plain lines for logs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedopt.logs import is_watched
from fedopt.runs.history import RoundRecord
from fedopt.runs.quality import quality
from fedopt.runs.runner import Observer

PLAIN_LINES = 20
"""About how many plain lines a run prints."""

LONGEST_SILENCE = 60.0
"""Seconds after which a plain line is printed anyway, because rounds take long."""

SHORTEST_BAR, LONGEST_BAR = 4, 40
"""Width of the bar in characters."""


class LiveProgress:
    """One line that is redrawn: round, test accuracy, training loss, clients per second, time left.

    In a narrow terminal the bar shrinks first; then parts are left out, the last first. Round and time left remain.
    """

    def __init__(self, console: Console) -> None:
        self._bar = BarColumn(bar_width=LONGEST_BAR)
        self._progress = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            self._bar,
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
        )
        self._task = self._progress.add_task("run", text="", total=None)
        self._accuracy, self._rounds = "", 1

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._rounds = rounds
        self._progress.update(self._task, total=rounds, completed=rounds_done)
        self._progress.start()

    def note(self, sentence: str) -> None:
        self._progress.console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    def round_done(self, record: RoundRecord) -> None:
        self._accuracy = quality(record) or self._accuracy
        parts = [part for part in (self._accuracy, _loss(record), _speed(record)) if part]
        text, self._bar.bar_width = fit(parts, self._progress.console.width, self._rounds)
        self._progress.update(self._task, completed=record.round, text=text)

    def ended(self) -> None:
        self._progress.stop()


class PlainProgress:
    """About PLAIN_LINES lines for the whole run, and one a minute if rounds take longer. No line is ever redrawn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rounds, self._first = 1, 0
        self._began = self._printed = time.perf_counter()

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._rounds, self._first = rounds, rounds_done
        self._began = self._printed = time.perf_counter()

    def note(self, sentence: str) -> None:
        self._console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    def round_done(self, record: RoundRecord) -> None:
        now, every = time.perf_counter(), max(1, self._rounds // PLAIN_LINES)
        if record.round % every and record.round != self._rounds and now - self._printed < LONGEST_SILENCE:
            return
        self._printed, passed = now, now - self._began
        left = passed / (record.round - self._first) * (self._rounds - record.round)
        parts = [part for part in (quality(record), _loss(record), _speed(record), f"{left:.0f} s left") if part]
        self._console.print(f"round {record.round}/{self._rounds}  {', '.join(parts)}", highlight=False, soft_wrap=True)

    def ended(self) -> None:
        pass


def progress(console: Console) -> Observer:
    """LiveProgress where a person looks at a terminal, else PlainProgress."""
    return LiveProgress(console) if is_watched() else PlainProgress(console)


def fit(parts: Sequence[str], width: int, rounds: int) -> tuple[str, int]:
    """The text between round and time left in a line of `width` characters, and the width of its bar.

    The text has as many of the parts as fit beside "round 100/100" and "0:12:34 left".
    """
    room = width - len("round 0:00:00 left") - (2 * len(str(rounds)) + 1) - 5  # five columns are followed by a space
    for count in range(len(parts), -1, -1):
        text = ", ".join(parts[:count])
        if len(text) + SHORTEST_BAR <= room:
            return text, min(LONGEST_BAR, room - len(text))
    return "", max(1, room)


def _loss(record: RoundRecord) -> str:
    return f"training loss {record.train_loss:.4f}"


def _speed(record: RoundRecord) -> str:
    return f"{len(record.cohort) / max(record.seconds, 1e-9):,.0f} clients/s"
