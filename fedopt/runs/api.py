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
from fedopt.logs import log_notes
from fedopt.registry import Registry, UnknownName
from fedopt.runs.history import History
from fedopt.runs.notebook import displays
from fedopt.runs.observers import AnyObserver, Observers
from fedopt.runs.own_data import check_resumed_data, with_data
from fedopt.runs.own_model import Model, resuming_with, with_model

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
    model: Model | None = None,
) -> History:
    """Runs the experiment as virtual clients and writes its directory.

    Args:
        experiment: what to run.
        out: a new directory for the run; by default one below runs/, named by time, data and algorithm.
        observers: functions `f(record)` or `f(record, run)`, called after each round, or objects with any of the
            methods `begin`, `note`, `started`, `round_done`, `finished` and `ended`.
        engine: "embedded", in this process and its workers, or "ray", Flower's simulation.
        progress: whether a bar is shown; by default only in a notebook.
        data: takes the place of the experiment's data set.
        model: a torch module, or a function of `sample_shape` and `classes` that returns one. It takes the place of
            the experiment's model. Training starts from the weights of the module, which itself is not changed. A
            pair (model, loss) has the loss as well: a function or module of logits and class indices.

    Returns:
        The run's history: its records, its summary and its final model.

    Raises:
        FedoptError: with one sentence, if the experiment is wrong or the run fails.

    >>> history = fedopt.run(fedopt.Experiment(run={"rounds": 20}), "runs/first", [print])    # doctest: +SKIP
    """
    Observers(observers)  # says what is wrong with them before the data are read
    if not isinstance(experiment, Experiment):
        raise InvalidExperiment(
            f"experiment: it must be a fedopt.Experiment, not {type(experiment).__name__}; fedopt.Experiment(**it) "
            "makes one of sections, and fedopt.Experiment.from_toml of a file"
        )
    experiment = with_model(with_data(experiment, data, engine), model, engine)
    log_notes(experiment.notes())
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
    model: Model | None = None,
) -> History:
    """Continues a run that was stopped or killed. It ends as if it had never stopped, with the same bits.

    `overrides` are `section.key=value`, as of `fedopt run --set`: a resumed run may change `run.rounds` and other keys
    on which its results so far do not depend. A run that was begun with `data` or `model` needs the same again; a
    module may have other weights by now. The other arguments are those of `fedopt.run`.

    >>> fedopt.resume("runs/first", ["run.rounds=200"])    # doctest: +SKIP
    """
    Observers(observers)
    check_resumed_data(Path(directory), data)
    play = cast(Callable[[Path, list[str], Sequence[AnyObserver]], History], _load(RESUMERS, engine))
    with resuming_with(Path(directory), model):
        return play(Path(directory), list(overrides), [*observers, *displays(progress)])


def _load(registry: Registry, engine: str) -> object:
    try:
        return registry.load(engine)
    except UnknownName as error:
        raise InvalidExperiment(str(error)) from error
