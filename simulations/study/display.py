"""A study's progress: a bar for the whole study with the time left, a line for each run that ends.

The displays implement `simulations.study.conduct.Watcher`.
"""

from __future__ import annotations

import time

from rich.progress import BarColumn, Progress, TextColumn

from fedopt.commands.options import ProgressStyle
from fedopt.commands.output import Output
from fedopt.runs.notebook import Canvas, bar
from fedopt.text import count


class Count:
    """Runs and rounds that are done, and the time left."""

    def __init__(self, rounds_done: int, rounds: int, runs_done: int, runs: int, failed: int) -> None:
        self._began = time.perf_counter()
        self._rounds_before = self.rounds_done = rounds_done
        self.rounds, self.runs_done, self.runs, self.failed = rounds, runs_done, runs, failed
        self._of_run: dict[str, int] = {}

    def round_done(self, name: str, rounds_done: int) -> None:
        if name not in self._of_run:  # rounds that were done before the run was resumed took no time in this call
            self._rounds_before += rounds_done
            self.rounds_done += rounds_done
        else:
            self.rounds_done += rounds_done - self._of_run[name]
        self._of_run[name] = rounds_done

    @property
    def left(self) -> str:
        done = self.rounds_done - self._rounds_before
        if done <= 0:
            return "time left unknown"
        seconds = (time.perf_counter() - self._began) / done * (self.rounds - self.rounds_done)
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"

    @property
    def text(self) -> str:
        return f"{self.runs_done}/{self.runs} runs, {f'{self.failed} failed, ' if self.failed else ''}{self.left}"

    def run_done(self, failure: str | None) -> None:
        self.runs_done += 1
        self.failed += failure is not None

    @property
    def outcome(self) -> str:
        """What is said when all is over."""
        good = self.runs_done - self.failed
        return f"{good} of {count(self.runs, 'run')} {'is' if self.runs == 1 else 'are'} done" + (
            f", {self.failed} failed" if self.failed else ""
        )


class Display:
    """Shows a study in the output's style of progress. Runs that fail are named in any style."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=output.console,
            disable=output.progress is not ProgressStyle.BAR,
            transient=True,
        )
        self._task = self._bar.add_task("", text="", total=None)

    def note(self, sentence: str) -> None:
        self._output.note(sentence)

    def begun(self, what: str, rounds_done: int, rounds: int, runs_done: int, runs: int, failed: int) -> None:
        self._what, self._count = what, Count(rounds_done, rounds, runs_done, runs, failed)
        if runs_done:
            lost = f", {failed} of them failed" if failed else ""
            self._output.say(f"{what}: {runs_done} of {runs} were done before{lost}")
        self._bar.start()
        self._redraw()

    def round_done(self, name: str, rounds_done: int) -> None:
        self._count.round_done(name, rounds_done)
        self._redraw()

    def run_done(self, name: str, failure: str | None) -> None:
        done = self._count
        done.run_done(failure)
        outcome = "done" if failure is None else f"failed: {failure.splitlines()[0]}"
        line = f"[{done.runs_done}/{done.runs}] {name}: {outcome}; {done.left}"
        if failure is not None or self._output.progress is ProgressStyle.PLAIN:
            self._output.say(line)
        self._redraw()

    def ended(self) -> None:
        self._bar.stop()

    def _redraw(self) -> None:
        done, rounds = self._count.rounds_done, self._count.rounds
        self._bar.update(self._task, description=self._what, completed=done, total=rounds, text=self._count.text)


class NotebookDisplay:
    """A bar below the notebook's cell; notes and runs that failed are listed."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._canvas = Canvas()

    def note(self, sentence: str) -> None:
        self._notes.append(sentence)

    def begun(self, what: str, rounds_done: int, rounds: int, runs_done: int, runs: int, failed: int) -> None:
        self._what, self._count = what, Count(rounds_done, rounds, runs_done, runs, failed)
        self._canvas = Canvas()  # the search has a bar of its own
        self._draw(self._count.text)

    def round_done(self, name: str, rounds_done: int) -> None:
        self._count.round_done(name, rounds_done)
        if self._canvas.is_due:
            self._draw(self._count.text)

    def run_done(self, name: str, failure: str | None) -> None:
        self._count.run_done(failure)
        if failure is not None:
            self._notes.append(f"{name} failed: {failure.splitlines()[0]}")

    def ended(self) -> None:
        self._draw(self._count.outcome)

    def _draw(self, text: str) -> None:
        share = self._count.rounds_done / self._count.rounds
        self._canvas.draw(bar(share, f"{self._what}: {text}", notes=self._notes), text)


class Silent:
    """Shows nothing."""

    def note(self, sentence: str) -> None:
        pass

    def begun(self, what: str, rounds_done: int, rounds: int, runs_done: int, runs: int, failed: int) -> None:
        pass

    def round_done(self, name: str, rounds_done: int) -> None:
        pass

    def run_done(self, name: str, failure: str | None) -> None:
        pass

    def ended(self) -> None:
        pass
