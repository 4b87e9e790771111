"""`fedopt.run` and `fedopt.resume`: the Python side of `fedopt run`.

Engines are named as strings and imported when used: this package knows of none of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from fedopt.experiment import Experiment
from fedopt.history import History
from fedopt.registry import Registry
from fedopt.runner import Observer

ENGINES = Registry("engine", {"embedded": "simulations.embedded:run"})
RESUMERS = Registry("engine", {"embedded": "simulations.embedded:resume"})


def run(
    experiment: Experiment, out: str | os.PathLike[str] | None = None, observers: Sequence[Observer] = ()
) -> History:
    """Runs the experiment as virtual clients in this process and writes its directory.

    `out` is a new directory; by default one below runs/, named by time, data and algorithm. FedoptError, with
    one sentence, for whatever is wrong with the experiment or goes wrong in the run.
    """
    engine = cast(Callable[[Experiment, Path | None, Sequence[Observer]], History], ENGINES.load("embedded"))
    return engine(experiment, None if out is None else Path(out), observers)


def resume(
    directory: str | os.PathLike[str], overrides: Sequence[str] = (), observers: Sequence[Observer] = ()
) -> History:
    """Continues a run that was stopped or killed; it ends as if it had never been."""
    engine = cast(Callable[[Path, list[str], Sequence[Observer]], History], RESUMERS.load("embedded"))
    return engine(Path(directory), list(overrides), observers)
