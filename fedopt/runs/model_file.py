"""model.safetensors: the model's state_dict and, in its header, what it takes to build the module.

With run.keep_models there are such files in models/ too, for single rounds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from fedopt.data.loading import load_dataset
from fedopt.errors import BrokenRun, InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.storage.record import Line

FILE = "model.safetensors"
KEPT = "models"
"""The folder of the models that run.keep_models keeps."""

NAME = re.compile(r"round-(\d{6,})\.safetensors")


class ModelFacts(Line):
    """The header of the file."""

    round: int
    """The round after which the model was written."""
    sample_shape: tuple[int, ...]
    """The shape of a sample, without the batch."""
    classes: int
    """The number of classes."""

    def as_metadata(self) -> dict[str, str]:
        return {"fedopt": self.model_dump_json()}


def file_of_round(run: Path, round_: int) -> Path:
    """Where the model after that round is kept, if it is."""
    return run / KEPT / f"round-{round_:06d}.safetensors"


def kept_rounds(run: Path) -> list[int]:
    """The rounds whose models are kept, rising."""
    found = (NAME.fullmatch(file.name) for file in (run / KEPT).glob("round-*"))
    return sorted(int(name[1]) for name in found if name is not None)


def remove_later(run: Path, round_: int) -> None:
    """Removes the models of later rounds, and what a write that was killed has left."""
    for later in kept_rounds(run):
        if later > round_:
            file_of_round(run, later).unlink()
    for draft in (run / KEPT).glob(".round-*.draft"):
        draft.unlink()


def read_model(run: Path, round_: int | None = None) -> tuple[dict[str, Tensor], ModelFacts | None]:
    """The weights and the header, of the latest model or of the one that was kept of a round; no header in a file of an
    older version. BrokenRun if there is no latest model, InvalidExperiment if that of the round is not there."""
    file = run / FILE if round_ is None else file_of_round(run, round_)
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            metadata: dict[str, Any] = content.metadata() or {}
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        if round_ is not None:
            raise InvalidExperiment(f"round {round_}: {run} has {_told(kept_rounds(run))}") from error
        raise BrokenRun(f"{run} has no {FILE}: the run has not saved a model yet") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise BrokenRun(f"{file} is torn: {error}") from error
    return weights, ModelFacts.model_validate_json(metadata["fedopt"]) if "fedopt" in metadata else None


def _told(rounds: list[int]) -> str:
    if not rounds:
        return "no models of single rounds; run.keep_models = 10 keeps every tenth"
    return f"the models of rounds {', '.join(map(str, rounds))} alone, as run.keep_models says"


def facts_of(run: Path, experiment: Experiment) -> ModelFacts:
    """The header, or what it would be if the file has none."""
    facts = read_model(run)[1]
    if facts is not None:
        return facts
    dataset = load_dataset(experiment.data, experiment.run.seed)
    return ModelFacts(round=0, sample_shape=dataset.sample_shape, classes=dataset.classes)


def initial_module(run: Path, experiment: Experiment) -> nn.Module:
    """The experiment's module with the weights that the run began with, on the CPU, in eval mode."""
    facts = facts_of(run, experiment)
    module = build_model(experiment.model, facts.sample_shape, facts.classes, experiment.run.seed)
    return module.to(getattr(torch, experiment.run.dtype)).eval()


def module_of(run: Path, experiment: Experiment, round_: int | None = None) -> nn.Module:
    """The experiment's module with the weights of the run, or those after a round, on the CPU, in eval mode."""
    weights, facts = read_model(run, round_)[0], facts_of(run, experiment)
    model = experiment.model.model_copy(update={"weights": None})  # the run's own are loaded instead
    module = build_model(model, facts.sample_shape, facts.classes, experiment.run.seed)
    module.to(getattr(torch, experiment.run.dtype)).load_state_dict(weights)
    return module.eval()
