"""The progress of an analysis: a bar that is redrawn where a person looks at it, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedopt.logs import is_watched

SILENCE, LONGEST_SILENCE = 10.0, 60.0
"""Seconds between plain lines, at least; and at most, where fewer than LINES would do."""
LINES = 20


class PointsDone:
    """Called with how many further points are done."""

    def __init__(self, points: int, say: Callable[[str], None]) -> None:
        self._points, self._say = points, say
        self._done = self._done_when_said = 0
        self._start = self._said = time.monotonic()
        self._bar = Progress(
            TextColumn("points"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=Console(file=sys.stderr),
            disable=not is_watched(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=points)

    def __call__(self, further: int) -> None:
        self._done += further
        self._bar.update(self._task, completed=self._done)
        now = time.monotonic()
        silence = SILENCE if self._done - self._done_when_said >= self._points / LINES else LONGEST_SILENCE
        if self._bar.disable and now - self._said >= silence and self._done < self._points:
            self._said, self._done_when_said = now, self._done
            left = (now - self._start) / self._done * (self._points - self._done)
            self._say(f"{self._done}/{self._points} points, {left:.0f} s left")

    def __enter__(self) -> PointsDone:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
