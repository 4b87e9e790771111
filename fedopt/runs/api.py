"""`fedopt.run` and `fedopt.resume`: the Python side of `fedopt run`.

Engines are named by strings and imported when used: this package does not depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from fedopt.data.own import Data
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.registry import Registry, UnknownName
from fedopt.runs.history import History
from fedopt.runs.notebook import displays
from fedopt.runs.observers import AnyObserver, Observers
from fedopt.runs.own_data import check_resumed_data, with_data

ENGINES = Registry("engine", {"embedded": "simulations.embedded:run", "ray": "server.ray_simulation:run"})
RESUMERS = Registry("engine", {"embedded": "simulations.embedded:resume", "ray": "server.ray_simulation:resume"})


def run(
    experiment: Experiment,
    out: str | os.PathLike[str] | None = None,
    observers: Sequence[AnyObserver] = (),
    engine: str = "embedded",
    *,
    progress: bool | None = None,
    data: Data | None = None,
) -> History:
    """Runs the experiment as virtual clients and writes its directory.

    `out` is a new directory; by default one below runs/, named by time, data and algorithm. `engine` is "embedded",
    in this process, or "ray". `progress` shows a bar: by default only in a notebook; with True elsewhere,
    too; with False nowhere. `data` takes the place of the experiment's data set. FedoptError, with one sentence, if the
    experiment is wrong or the run fails.
    """
    Observers(observers)  # says what is wrong with them before the data are read
    experiment = with_data(experiment, data, engine)
    play = cast(Callable[[Experiment, Path | None, Sequence[AnyObserver]], History], _load(ENGINES, engine))
    return play(experiment, None if out is None else Path(out), [*observers, *displays(progress)])


def resume(
    directory: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    observers: Sequence[AnyObserver] = (),
    engine: str = "embedded",
    *,
    progress: bool | None = None,
    data: Data | None = None,
) -> History:
    """Continues a run that was stopped or killed. It ends as if it had never stopped.

    A run that was begun with `data` needs the same data again.
    """
    Observers(observers)
    check_resumed_data(Path(directory), data)
    play = cast(Callable[[Path, list[str], Sequence[AnyObserver]], History], _load(RESUMERS, engine))
    return play(Path(directory), list(overrides), [*observers, *displays(progress)])


def _load(registry: Registry, engine: str) -> object:
    try:
        return registry.load(engine)
    except UnknownName as error:
        raise InvalidExperiment(str(error)) from error
