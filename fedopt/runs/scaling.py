"""Raw samples as a run's model takes them: `history.prepare`."""

from __future__ import annotations

from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fedopt.data.dataset import Scaling
from fedopt.errors import BrokenRun, InvalidExperiment
from fedopt.runs.directory import SCALING
from fedopt.runs.history import History
from fedopt.runs.model_file import facts_of


def prepared(history: History, samples: Any) -> Tensor:
    """The samples, shifted and scaled as the run's training data were, in the run's dtype."""
    try:
        raw = samples.detach().cpu() if isinstance(samples, Tensor) else torch.from_numpy(np.array(samples))
    except (TypeError, ValueError) as error:
        raise InvalidExperiment(f"prepare: samples must be numbers, rows of one length: {error}") from error
    shape = facts_of(history.directory, history.experiment).sample_shape
    if tuple(raw.shape[1:]) != shape:
        raise InvalidExperiment(
            f"prepare: the model takes samples of the shape {shape}, n of them as {('n', *shape)}, "
            f"not an array of the shape {tuple(raw.shape)}".replace("'n'", "n")
        )
    scaling = _scaling(history)
    scaled = raw if scaling is None else scaling.apply(raw)
    return scaled.to(getattr(torch, history.experiment.run.dtype))


def _scaling(history: History) -> Scaling | None:
    file = history.directory / SCALING
    try:
        found = safetensors.torch.load_file(file)
        return Scaling(found["mean"], found["deviation"])
    except FileNotFoundError:
        if history.experiment.data.source.standardizes:
            raise BrokenRun(f"{history.directory} has no {SCALING}: it was made by an older version") from None
        return None
    except (SafetensorError, OSError, KeyError) as error:
        raise BrokenRun(f"{file} is torn: {error}") from error
