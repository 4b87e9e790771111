"""model.safetensors: the model's state_dict and, in its header, what it takes to build the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from fedopt.data.loading import load_dataset
from fedopt.errors import BrokenRun
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.storage.record import Line

FILE = "model.safetensors"


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


def read_model(run: Path) -> tuple[dict[str, Tensor], ModelFacts | None]:
    """The weights and the header; no header in a file of an older version. BrokenRun if there is no such file."""
    try:
        with safetensors.safe_open(run / FILE, framework="pt") as content:
            metadata: dict[str, Any] = content.metadata() or {}
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise BrokenRun(f"{run} has no {FILE}: the run has not saved a model yet") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise BrokenRun(f"{run / FILE} is torn: {error}") from error
    return weights, ModelFacts.model_validate_json(metadata["fedopt"]) if "fedopt" in metadata else None


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


def module_of(run: Path, experiment: Experiment) -> nn.Module:
    """The experiment's module with the weights of the run, on the CPU, in eval mode."""
    weights, facts = read_model(run)[0], facts_of(run, experiment)
    model = experiment.model.model_copy(update={"weights": None})  # the run's own are loaded instead
    module = build_model(model, facts.sample_shape, facts.classes, experiment.run.seed)
    module.to(getattr(torch, experiment.run.dtype)).load_state_dict(weights)
    return module.eval()
