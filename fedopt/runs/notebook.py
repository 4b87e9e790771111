"""Progress in a notebook: a bar and the curve of test accuracy, redrawn in place as HTML without JavaScript."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from fedopt.imports import load_attribute
from fedopt.runs.display import caption
from fedopt.runs.history import RoundRecord
from fedopt.runs.quality import quality, score_in
from fedopt.runs.runner import Observer
from fedopt.runs.sparkline import COLOR, chart
from fedopt.runs.view import RunView
from fedopt.text import count

INTERVAL = 0.15
"""Seconds between two drawings."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. IPython in a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def displays(progress: bool | None) -> list[Observer]:
    """The observer that shows a run's progress: by default (None) in a notebook only, with True in a terminal, too."""
    if progress is False or (progress is None and not in_notebook()):
        return []
    if in_notebook():
        return [NotebookProgress()]
    from rich.console import Console

    from fedopt.runs.progress import progress as in_terminal

    return [in_terminal(Console(stderr=True))]


class DisplayHandle(Protocol):
    """The part of IPython's class that is used; IPython itself has no types."""

    def display(self, obj: object, **options: Any) -> None: ...

    def update(self, obj: object, **options: Any) -> None: ...


class Canvas:
    """A place below a notebook's cell where HTML, or text in a front end without it, is drawn over and over."""

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None
        self._drawn_at = 0.0

    @property
    def is_due(self) -> bool:
        return time.perf_counter() - self._drawn_at >= INTERVAL

    def draw(self, markup: str, text: str) -> None:
        shown = {"text/html": markup, "text/plain": text}
        if self._handle is None:
            self._handle = cast(type[DisplayHandle], load_attribute("IPython.display:DisplayHandle"))()
            self._handle.display(shown, raw=True)
        else:
            self._handle.update(shown, raw=True)
        self._drawn_at = time.perf_counter()


def bar(share: float, text: str, below: str = "", notes: Sequence[str] = ()) -> str:
    """A line of text, a bar that is filled to `share`, what is drawn below it, and notes."""
    lines = "".join(f'<div style="opacity:0.7">{html.escape(note)}</div>' for note in notes)
    return (
        '<div style="max-width:420px;line-height:1.5">'
        f"<div>{html.escape(text)}</div>"
        '<div style="height:6px;margin:4px 0 8px;border-radius:3px;background:rgba(127,127,127,0.25)">'
        f'<div style="height:100%;width:{100 * share:.1f}%;border-radius:3px;background:{COLOR}"></div></div>'
        f"{below}{lines}</div>"
    )


class NotebookProgress:
    """Implements `fedopt.runs.runner.Observer`."""

    def __init__(self) -> None:
        self._canvas = Canvas()
        self._notes: list[str] = []
        self._scores: list[tuple[float, float]] = []
        self._quality, self._numbers = "", False
        self._round = self._first = 0
        self._rounds, self._began = 1, time.perf_counter()
        self._loss = self._caption = ""

    def begin(self, run: RunView) -> None:
        self._caption = f"{caption(run.experiment)}: "

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._round = self._first = rounds_done
        self._rounds, self._began = rounds, time.perf_counter()
        self._draw(f"round {rounds_done} of {rounds}")

    def note(self, sentence: str) -> None:
        self._notes.append(sentence)

    def round_done(self, record: RoundRecord) -> None:
        self._round = record.round
        self._notes += [f"round {record.round}: without client {c}: {why}" for c, why in record.left_out.items()]
        self._loss = f"training loss {record.train_loss:.4f}"
        score = score_in(record)
        if score is not None:
            self._scores.append((record.round, score))
            self._quality, self._numbers = quality(record), record.regression is not None
        if self._canvas.is_due:
            passed = time.perf_counter() - self._began
            left = passed / (self._round - self._first) * (self._rounds - self._round)
            self._draw(", ".join([f"round {self._round} of {self._rounds}", *self._results(), f"{left:.0f} s left"]))

    def ended(self) -> None:
        rounds = (
            count(self._round, "round") if self._round == self._rounds else f"{self._round} of {self._rounds} rounds"
        )
        passed = time.perf_counter() - self._began
        self._draw(", ".join([f"{rounds} in {passed:.1f} s", *self._results()]))

    def _results(self) -> list[str]:
        return [part for part in (self._quality, self._loss) if part]

    def _draw(self, text: str) -> None:
        text = self._caption + text
        label = "test R²" if self._numbers else "test accuracy"
        curve = chart(self._scores, self._rounds, label, "{:.3g}" if self._numbers else "{:.1%}")
        self._canvas.draw(bar(self._round / self._rounds, text, curve, self._notes), text)
