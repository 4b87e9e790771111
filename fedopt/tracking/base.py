"""The contract of a tracker, and what all trackers share: resuming, sending again, warning once."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

from fedopt.errors import FedoptError, InvalidExperiment, RunStopped
from fedopt.experiment.experiment import Experiment
from fedopt.registry import load_attribute
from fedopt.runs.history import History, RoundRecord
from fedopt.runs.runner import Interrupted
from fedopt.runs.view import RunView
from fedopt.storage.files import replace_file
from fedopt.tracking.delivery import Delivery, Point
from fedopt.tracking.flat import numbers
from fedopt.tracking.ledger import Entry, Ledger

log = logging.getLogger("fedopt.tracking")

Outcome = Literal["finished", "stopped", "failed"]
"""How a run ended: completely, by Ctrl-C (it can be resumed), or with an error."""

REPORT = ("simulations.results:read_results", "simulations.report.page:page")
"""How the HTML report is made. Strings, because this package does not import the simulations."""


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker follows."""

    directory: Path
    experiment: Experiment
    rounds_done: int
    """0 for a new run; for a resumed one, the round of its checkpoint."""
    known: Entry | None
    """What this tracker was told of the run before; None if it has not followed it yet."""

    @property
    def name(self) -> str:
        return self.directory.absolute().name

    @property
    def study(self) -> str | None:
        """The name of the study that the run belongs to."""
        folder = self.directory.absolute().parent
        return folder.name if (folder / "study.toml").exists() else None


class Tracker:
    """An observer that hands a run to a tracking tool.

    A subclass says what the tool is called and which package it needs, and implements `open`, `send`, `attach` and
    `close`. They may raise anything: a failure of `open` ends the run before its first round; later ones are logged
    once as a warning, and the run goes on.
    """

    name: ClassVar[str]
    """As in `--track NAME` and in tracking.json."""
    package: ClassVar[str] = ""
    """The module that must be installed."""
    extra: ClassVar[str] = ""
    """The extra of fedopt that installs it."""
    see: str = ""
    """A sentence on where the user finds the run, known once it is open."""

    def __init__(self) -> None:
        if self.package and importlib.util.find_spec(self.package) is None:
            get = f"pip install 'fedopt[{self.extra}]'" if self.extra else f"pip install {self.package}"
            raise InvalidExperiment(
                f"tracking with {self.name} needs the package {self.package}, which is not installed; "
                f"install it with {get}"
            )
        self._view: RunView | None = None
        self._delivery: Delivery | None = None
        self._last = 0

    # The contract

    def open(self, run: Tracked) -> Entry:
        """Opens the run in the tool, or the same run again, and logs its parameters.

        The entry says which rounds the tool has already: they are not sent again.
        """
        raise NotImplementedError

    def send(self, points: Sequence[Point]) -> None:
        """Logs the numbers of some rounds, all of them or none. Called in a thread."""
        raise NotImplementedError

    def attach(self, history: History, files: Sequence[Path]) -> None:
        """Stores the files of a finished run, and its final figures."""

    def close(self, outcome: Outcome) -> None:
        """The run has ended."""

    # The observer

    def begin(self, run: RunView) -> None:
        self._view = run

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        assert self._view is not None
        self._ledger = Ledger(directory)
        tracked = Tracked(directory, self._view.experiment, rounds_done, self._ledger.read(self.name))
        try:
            self._entry = self.open(tracked)
            self._ledger.write(self.name, self._entry)
        except FedoptError:
            raise
        except Exception as error:  # whatever the tool's package may raise
            raise RunStopped(f"tracking with {self.name} cannot start: {type(error).__name__}: {error}") from error
        self._last = self._entry.round
        self._delivery = Delivery(self.name, self._send)
        if self._last < rounds_done:  # made before this tracker was chosen, or lost by it
            for record in _records(directory / "metrics.jsonl", rounds_done):
                self.round_done(record)

    def round_done(self, record: RoundRecord) -> None:
        if record.round > self._last and self._delivery is not None:
            self._delivery.put(Point(record.round, numbers(record)))

    def finished(self, history: History) -> None:
        if self._delivery is not None:
            self._deliver_the_rest(self._delivery)
            self._attempt("store the run's files", lambda: self.attach(history, self._files(history)))
            self._attempt("be closed", lambda: self.close("finished"))

    def ended(self) -> None:
        if self._delivery is not None:  # else the run has finished, or it ended before its first round
            self._deliver_the_rest(self._delivery)
            error = sys.exception()  # ended is called while the error that ends a run passes
            stopped = isinstance(error, Interrupted | KeyboardInterrupt | GeneratorExit)
            self._attempt("be closed", lambda: self.close("stopped" if stopped else "failed"))

    def _deliver_the_rest(self, delivery: Delivery) -> None:
        self._delivery = None
        missing = delivery.flush()
        delivery.close()
        if missing:
            log.warning(
                "%s: rounds %s to %s are missing there; resuming the run with --track %s sends them",
                self.name,
                missing[0],
                missing[-1],
                self.name,
            )

    def _send(self, points: Sequence[Point]) -> None:
        self.send(points)
        self._entry = self._entry.model_copy(update={"round": points[-1].round})
        self._ledger.write(self.name, self._entry)

    def _attempt(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever the tool's package may raise; the run itself is complete
            log.warning("%s could not %s: %s: %s", self.name, what, type(error).__name__, error)

    def _files(self, history: History) -> list[Path]:
        """The files of a finished run that are worth keeping, with an HTML report made for them."""
        directory = history.directory
        read_results, page = (cast(Callable[..., str], load_attribute(place)) for place in REPORT)
        replace_file(directory / "report.html", page(read_results([directory])).encode())
        names = ("experiment.toml", "summary.json", "model.safetensors", "metrics.jsonl", "report.html")
        return [directory / name for name in names]


def _records(file: Path, rounds: int) -> list[RoundRecord]:
    with open(file, "rb") as lines:
        return [RoundRecord.model_validate_json(line) for _, line in zip(range(rounds), lines, strict=False)]
