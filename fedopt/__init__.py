"""Federated optimization that people can trust and that runs fast.

>>> import fedopt
>>> experiment = fedopt.Experiment(algorithm={"name": "scaffold"}, run={"rounds": 20, "seed": 1})
>>> history = fedopt.run(experiment, out="runs/first")          # doctest: +SKIP
>>> history.summary.final.test_accuracy, history.model()        # doctest: +SKIP

Describe and run: `Experiment`, `run`, `resume`, `rounds` (step by step), `Study` (a grid), `Data` (your own samples).
Look: `History` (what a run returns), `load` (a run made before), `compare` (runs side by side).
Follow: observers get a `RoundRecord` and a `RunView`, and end the run with `StopRun`; `tracking` has ready-made ones.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Flower sends telemetry and checks for updates by default. A user who wants that sets these variables.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

if TYPE_CHECKING:
    from fedopt import tracking as tracking
    from fedopt.data.own import Data as Data
    from fedopt.errors import StopRun as StopRun
    from fedopt.experiment.experiment import Experiment as Experiment
    from fedopt.runs.api import resume as resume
    from fedopt.runs.api import run as run
    from fedopt.runs.compare import Comparison as Comparison
    from fedopt.runs.compare import compare as compare
    from fedopt.runs.history import History as History
    from fedopt.runs.history import RoundRecord as RoundRecord
    from fedopt.runs.load import load as load
    from fedopt.runs.stepping import rounds as rounds
    from fedopt.runs.study import Study as Study
    from fedopt.runs.view import RunView as RunView

__all__ = [
    "Comparison",
    "Data",
    "Experiment",
    "History",
    "RoundRecord",
    "RunView",
    "StopRun",
    "Study",
    "compare",
    "load",
    "resume",
    "rounds",
    "run",
    "tracking",
]

_MODULES = {"tracking"}
"""Packages that are imported when they are first used, as in `fedopt.tracking.MLflow`."""

_PLACES = {
    "Comparison": "fedopt.runs.compare:Comparison",
    "Data": "fedopt.data.own:Data",
    "Experiment": "fedopt.experiment.experiment:Experiment",
    "History": "fedopt.runs.history:History",
    "RoundRecord": "fedopt.runs.history:RoundRecord",
    "RunView": "fedopt.runs.view:RunView",
    "StopRun": "fedopt.errors:StopRun",
    "Study": "fedopt.runs.study:Study",
    "compare": "fedopt.runs.compare:compare",
    "load": "fedopt.runs.load:load",
    "resume": "fedopt.runs.api:resume",
    "rounds": "fedopt.runs.stepping:rounds",
    "run": "fedopt.runs.api:run",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, when it is asked for: `fedopt --help` must not wait for torch."""
    from fedopt.imports import load_attribute

    if name in _PLACES:
        return load_attribute(_PLACES[name])
    if name in _MODULES:
        return import_module(f"fedopt.{name}")
    raise AttributeError(f"module 'fedopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    """For completion: the names that are imported when they are asked for are among them."""
    return sorted({*globals(), *__all__})
