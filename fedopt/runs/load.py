"""`fedopt.load`: the history of a run that was made before."""

from __future__ import annotations

import os
from pathlib import Path

from fedopt.errors import BrokenRun
from fedopt.runs.history import Final, History, Summary, summarize
from fedopt.runs.model_file import read_model
from fedopt.runs.past_runs import PastRun, read_run
from fedopt.vectors.layout import fingerprint


def load(directory: str | os.PathLike[str]) -> History:
    """The history of the run in a directory, whether it has finished or was stopped.

    Of a run that was stopped, `finished` is False, and the summary is of the rounds so far: its final figures are those
    of the last evaluation. A model of your own is not imported before `history.model()` is called. InvalidExperiment if
    there is no run, BrokenRun if it has no evaluated round or no model yet.

    >>> history = fedopt.load("runs/first")              # doctest: +SKIP
    >>> history.summary.final.test_accuracy              # doctest: +SKIP
    """
    run = read_run(Path(directory))
    summary = run.summary or _so_far(run)
    return History(run.experiment, run.path, run.records, summary, finished=run.finished)


def _so_far(run: PastRun) -> Summary:
    for record in reversed(run.records):
        if record.test_accuracy is not None and record.test_loss is not None:
            final = Final(test_accuracy=record.test_accuracy, test_loss=record.test_loss)
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
