"""What a run writes: a record for each round, a summary, the weights."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import cast

from pydantic import AliasChoices, Field
from safetensors.torch import load_file
from torch import Tensor

from fedopt.drift.records import ClassSpread, ClientSpread, Drift, GradientDrift
from fedopt.experiment.experiment import Experiment
from fedopt.imports import load_attribute
from fedopt.storage.record import Line


class RoundRecord(Line):
    """One line of metrics.jsonl."""

    round: int
    """The round's number, from 1."""
    cohort: list[int]
    """The clients that were selected."""
    left_out: dict[int, str] = Field(default_factory=dict)
    """Clients of the cohort whose updates were not aggregated, each with the reason."""
    samples: int
    """Training samples of the round's clients."""
    local_steps: int
    """Local steps of the round's clients, added up."""
    train_loss: float
    """Mean loss over these steps, weighted like the objective."""
    test_loss: float | None
    """Mean loss on the test set; null in rounds without evaluation."""
    test_accuracy: float | None
    """Accuracy on the test set; null in rounds without evaluation."""
    update_norm: float
    """|x+ - x|, the norm of the global model's step."""
    bytes_down: int
    """Bytes sent to the clients."""
    bytes_up: int
    """Bytes sent by the clients."""
    seconds: float
    """Wall time, evaluation included."""
    drift: Drift | None = None
    """Measures of the clients' updates; every round, unless metrics.drift is "off"."""
    gradients: GradientDrift | None = None
    """Measures of the clients' full gradients at x; every metrics.drift_every rounds."""
    algorithm: dict[str, float | None] | None = Field(None, validation_alias=AliasChoices("algorithm", "control"))
    """The algorithm's own measures, if it has some; every round, some of them when full gradients are computed."""
    clients: ClientSpread | None = None
    """The model on each client's own test share; every metrics.clients_every rounds."""
    classes: ClassSpread | None = None
    """The model class by class; whenever the test set is evaluated."""
    divergence: float | None = None
    """|x - x_central| / |x_central|, x_central a centralized run on as many samples; with metrics.divergence."""


class Final(Line):
    test_accuracy: float
    test_loss: float


class Best(Line):
    round: int
    test_accuracy: float


class Summary(Line):
    """summary.json."""

    final: Final
    best: Best
    rounds: int
    rounds_to_target: int | None
    seconds: float
    seed: int
    device: str
    engine: str
    versions: dict[str, str]
    weights_sha256: str


@dataclass(frozen=True)
class History:
    """A finished run, as `fedopt.run` returns it."""

    experiment: Experiment
    directory: Path
    records: tuple[RoundRecord, ...]
    summary: Summary

    @property
    def weights(self) -> dict[str, Tensor]:
        """The final model's state_dict, for `module.load_state_dict`."""
        return load_file(self.directory / "model.safetensors")

    def __repr__(self) -> str:
        return cast(Callable[[History], str], load_attribute("fedopt.runs.display:history_text"))(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return cast(Callable[[History], str], load_attribute("fedopt.runs.display:history_html"))(self)


def summarize(
    experiment: Experiment,
    records: list[RoundRecord],
    final: Final,
    *,
    seconds: float,
    device: str,
    engine: str,
    weights_sha256: str,
) -> Summary:
    """The summary of a run that ended with `final`."""
    evaluated = {record.round: record.test_accuracy for record in records if record.test_accuracy is not None}
    evaluated[records[-1].round] = final.test_accuracy
    best_round = max(evaluated, key=lambda round_: (evaluated[round_], -round_))
    target = experiment.run.target_accuracy
    reached = [round_ for round_, accuracy in evaluated.items() if target is not None and accuracy >= target]
    return Summary(
        final=final,
        best=Best(round=best_round, test_accuracy=evaluated[best_round]),
        rounds=records[-1].round,
        rounds_to_target=reached[0] if reached else None,
        seconds=seconds,
        seed=experiment.run.seed,
        device=device,
        engine=engine,
        versions=_versions(),
        weights_sha256=weights_sha256,
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: _version(name) for name in ("fedopt", "torch", "numpy")}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from its source tree
