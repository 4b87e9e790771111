"""`fedopt.load`: the history of a run that was made before."""

from __future__ import annotations

import os
from pathlib import Path

from fedopt.errors import BrokenRun
from fedopt.runs.history import Final, History, Summary, summarize
from fedopt.runs.model_file import read_model
from fedopt.runs.own_model import Model, resuming_with
from fedopt.runs.past_runs import PastRun, read_run
from fedopt.vectors.layout import fingerprint


def load(directory: str | os.PathLike[str], *, model: Model | None = None) -> History:
    """The history of the run in a directory, whether it has finished or was stopped.

    Of a run that was stopped, `finished` is False, and the summary is of the rounds so far: its final figures are those
    of the last evaluation. A model of your own is not imported before `history.model()` is called.

    A run that was begun with `model=` in another process needs it again for `history.model()`: a module of the same
    class, with any weights, or the function; a pair as in `fedopt.run`. The history's weights are those of the run.

    InvalidExperiment if there is no run or it was begun with another model, BrokenRun if it has no evaluated round or
    no model yet.

    >>> history = fedopt.load("runs/first")              # doctest: +SKIP
    >>> history.summary.final.test_accuracy              # doctest: +SKIP
    """
    with resuming_with(Path(directory), model, lambda path: read_run(path).experiment):
        run = read_run(Path(directory))
    summary = run.summary or _so_far(run)
    return History(run.experiment, run.path, run.records, summary, finished=run.finished)


def _so_far(run: PastRun) -> Summary:
    for record in reversed(run.records):
        if record.test_loss is not None:
            final = Final(
                test_accuracy=record.test_accuracy,
                regression=record.regression,
                test_loss=record.test_loss,
                personal_accuracy=record.personal_accuracy,
            )
            break
    else:
        raise BrokenRun(f"{run.path} has no evaluated round yet; continue it with --resume")
    return summarize(
        run.experiment,
        list(run.records),
        final,
        seconds=round(sum(record.seconds for record in run.records), 3),
        device=run.experiment.run.device,
        engine="unknown",
        weights_sha256=fingerprint(read_model(run.path)[0]),
    )
