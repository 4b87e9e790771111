"""Trackers by name: observers that follow a run in TensorBoard, MLflow or Weights & Biases.

>>> import fedopt
>>> fedopt.run(fedopt.Experiment(), observers=[fedopt.tracking.MLflow()])       # doctest: +SKIP

A new one is a file in this folder and an entry here; an installed package adds one with the entry point
`tracker.NAME = "package.module:Class"` in the group `fedopt.plugins`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from fedopt.errors import InvalidExperiment
from fedopt.registry import Entry, Registry, UnknownName

if TYPE_CHECKING:
    from fedopt.tracking.base import Tracker as Tracker
    from fedopt.tracking.mlflow import MLflow as MLflow
    from fedopt.tracking.tensorboard import TensorBoard as TensorBoard
    from fedopt.tracking.wandb import WandB as WandB

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "Tracker", "WandB", "trackers"]

TRACKERS = Registry(
    "tracker",
    {
        "tensorboard": Entry("fedopt.tracking.tensorboard:TensorBoard", "event files in the run's directory"),
        "mlflow": Entry("fedopt.tracking.mlflow:MLflow", "MLflow: a local SQLite file, or MLFLOW_TRACKING_URI"),
        "wandb": Entry("fedopt.tracking.wandb:WandB", "Weights & Biases: offline, or as WANDB_MODE says"),
    },
    base="fedopt.tracking.base:Tracker",
)

_PLACES = {
    "MLflow": "fedopt.tracking.mlflow:MLflow",
    "TensorBoard": "fedopt.tracking.tensorboard:TensorBoard",
    "Tracker": "fedopt.tracking.base:Tracker",
    "WandB": "fedopt.tracking.wandb:WandB",
}


def __getattr__(name: str) -> Any:
    from fedopt.imports import load_attribute

    if name in _PLACES:
        return load_attribute(_PLACES[name])
    raise AttributeError(f"module 'fedopt.tracking' has no attribute {name!r}")


def trackers(names: Sequence[str]) -> list[Tracker]:
    """An observer for each name of `--track`; InvalidExperiment if one is unknown or its package is not installed."""
    made: list[Tracker] = []
    for name in dict.fromkeys(names):
        try:
            kind = cast("type[Tracker]", TRACKERS.resolve(name))
        except UnknownName as error:
            raise InvalidExperiment(f"--track {name}: {error}") from error
        made.append(kind())
    return made
