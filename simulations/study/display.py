"""A study's progress: a bar for the whole study with the time left, a line for each run that ends."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from simulations.study.conduct import Watcher


class Display:
    """In a terminal a bar that is redrawn, elsewhere a line for each run. Implements `Watcher`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", text="", total=None)

    def begun(self, what: str, rounds_done: int, rounds: int, runs_done: int, runs: int) -> None:
        self._what, self._began = what, time.perf_counter()
        self._rounds_before = self._rounds_done = rounds_done
        self._rounds, self._runs_done, self._runs = rounds, runs_done, runs
        self._of_run: dict[str, int] = {}
        self._resumed_at: dict[str, int] = {}
        if runs_done:
            self._console.print(f"{what}: {runs_done} of {runs} were done before", highlight=False)
        self._bar.start()
        self._redraw()

    def round_done(self, name: str, rounds_done: int) -> None:
        if name not in self._of_run:  # rounds that were done before the run was resumed took no time in this call
            self._rounds_before += rounds_done
            self._rounds_done += rounds_done
        else:
            self._rounds_done += rounds_done - self._of_run[name]
        self._of_run[name] = rounds_done
        self._redraw()

    def run_done(self, name: str, failure: str | None) -> None:
        self._runs_done += 1
        outcome = "done" if failure is None else f"failed: {failure.splitlines()[0]}"
        line = f"[{self._runs_done}/{self._runs}] {name}: {outcome}; {self._left()}"
        if failure is not None or not self._console.is_terminal:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._redraw()

    def ended(self) -> None:
        self._bar.stop()

    def _redraw(self) -> None:
        text = f"{self._runs_done}/{self._runs} runs, {self._left()}"
        self._bar.update(self._task, description=self._what, completed=self._rounds_done, total=self._rounds, text=text)

    def _left(self) -> str:
        done = self._rounds_done - self._rounds_before
        if done <= 0:
            return "time left unknown"
        seconds = (time.perf_counter() - self._began) / done * (self._rounds - self._rounds_done)
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"


def display(console: Console) -> Watcher:
    return Display(console)
