"""The module of a run that was made before, from the user's own code where the model is theirs."""

from __future__ import annotations

from torch import nn

from fedopt.runs.directory import read_run_experiment
from fedopt.runs.history import History
from fedopt.runs.model_file import module_of


def final_model(history: History) -> nn.Module:
    """The history's module with its final weights."""
    experiment = history.experiment
    if ":" in experiment.model.name:  # its code is looked for where the run found it
        experiment = experiment.replace(model=read_run_experiment(history.directory, []).model)
    return module_of(history.directory, experiment)
