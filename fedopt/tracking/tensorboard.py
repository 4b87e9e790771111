"""TensorBoard: event files in the folder tensorboard/ of the run's directory."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedopt.runs.history import History
from fedopt.tracking.base import Outcome, Tracked, Tracker
from fedopt.tracking.delivery import Point
from fedopt.tracking.flat import parameters
from fedopt.tracking.ledger import Entry

FOLDER = "tensorboard"


class TensorBoard(Tracker):
    """Writes a scalar for each number of each round, the experiment as a text, and its keys as hyperparameters.

    Look at them with `tensorboard --logdir runs`.
    """

    name = "tensorboard"
    package = "tensorboard"
    extra = "tensorboard"

    def open(self, run: Tracked) -> Entry:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.directory / FOLDER
        before = 0 if run.known is None or not folder.is_dir() else min(run.known.round, run.rounds_done)
        # A killed run may have written rounds that are now run again: purge_step discards them.
        self._writer: Any = SummaryWriter(str(folder), purge_step=before + 1)
        self._parameters = parameters(run.experiment)
        text = "\n".join(f"    {key} = {value}" for key, value in self._parameters.items())
        self._writer.add_text("experiment", text, before + 1)
        self._writer.flush()
        self.see = f"tensorboard --logdir {run.directory}"
        return Entry(id=run.known.id if run.known else secrets.token_hex(4), where=FOLDER, round=before)

    def send(self, points: Sequence[Point]) -> None:
        for point in points:
            for name, value in point.numbers.items():
                self._writer.add_scalar(name, value, point.round)
        self._writer.flush()

    def attach(self, history: History, files: Sequence[Path]) -> None:
        from torch.utils.tensorboard.summary import hparams

        final, best = history.summary.final, history.summary.best
        name = "test_accuracy" if final.regression is None else "regression.r2"
        figures = {f"final/{name}": final.score, "final/test_loss": final.test_loss, f"best/{name}": best.score}
        for summary in hparams(self._parameters, figures):  # type: ignore[no-untyped-call]
            self._writer.file_writer.add_summary(summary)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, history.summary.rounds)

    def close(self, outcome: Outcome) -> None:
        self._writer.close()
