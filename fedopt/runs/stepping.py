"""`fedopt.rounds`: a run that pauses after each round."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Self, cast

from torch import nn

from fedopt.data.own import Data
from fedopt.device import threads
from fedopt.experiment.experiment import Experiment
from fedopt.imports import load_attribute
from fedopt.logs import log_notes
from fedopt.runs.history import History, RoundRecord
from fedopt.runs.load import load
from fedopt.runs.observers import AnyObserver, Observers
from fedopt.runs.own_data import with_data
from fedopt.runs.own_model import Model, with_model
from fedopt.runs.view import RunView

Playing = Generator[tuple[RunView, RoundRecord | None], None, History]
"""Pauses before the first round, without a record, and after each round."""


def rounds(
    experiment: Experiment,
    out: str | os.PathLike[str] | None = None,
    observers: Sequence[AnyObserver] = (),
    *,
    data: Data | None = None,
    model: Model | None = None,
) -> Rounds:
    """Runs the experiment round by round, in this process: each step is `(record, model)`.

    `model` is a copy of the global model after the round, in eval mode. Leaving a `with` block, or `close()`, saves the
    run, and `fedopt.resume(steps.directory)` continues it. The results are those of `fedopt.run`, whose arguments these
    are, to the bit.

    >>> with fedopt.rounds(fedopt.Experiment(), "runs/by-hand") as steps:    # doctest: +SKIP
    ...     for record, model in steps:
    ...         if record.test_accuracy > 0.8:
    ...             break
    """
    Observers(observers)  # says what is wrong with them before the data are read
    experiment = with_model(with_data(experiment, data), model)
    log_notes(experiment.notes())
    return Rounds(experiment, None if out is None else Path(out), observers)


class Rounds(Iterator[tuple[RoundRecord, nn.Module]]):
    """The rounds of a run, one at a time."""

    def __init__(self, experiment: Experiment, out: Path | None, observers: Sequence[AnyObserver]) -> None:
        play = cast(
            Callable[[Experiment, Path | None, Sequence[AnyObserver]], Playing],
            load_attribute("simulations.embedded:rounds"),
        )
        self._threads = experiment.run.threads
        self._playing = play(experiment, out, observers)
        self._history: History | None = None
        with threads(self._threads):
            self._view, _ = next(self._playing)

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self._view.directory

    @property
    def history(self) -> History:
        """The history of the run: of all its rounds once they are done, of the rounds so far before."""
        return self._history or load(self.directory)

    def __next__(self) -> tuple[RoundRecord, nn.Module]:
        with threads(self._threads):  # a setting of the process, which the code between two rounds may change
            try:
                _, record = next(self._playing)
            except StopIteration as end:
                self._history = end.value or self._history
                raise StopIteration from None
            assert record is not None
            return record, self._view.model()

    def close(self) -> None:
        """Ends the run after the last round and saves it. Without an effect if it has ended."""
        with threads(self._threads):
            self._playing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
