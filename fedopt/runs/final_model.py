"""The module of a run that was made before, from the user's own code where the model is theirs."""

from __future__ import annotations

from pydantic import ValidationError
from torch import nn

from fedopt.data.label_skew import LabelSpread
from fedopt.errors import BrokenRun, InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.registry import nearest
from fedopt.runs.checkpoint import Checkpoints
from fedopt.runs.directory import read_run_experiment
from fedopt.runs.history import History
from fedopt.runs.model_file import initial_module, module_of
from fedopt.vectors.layout import Layout


def final_model(history: History, client: int | str | None = None, round_: int | None = None) -> nn.Module:
    """The history's module with its final weights, with those after a round, or with those of a client's own model."""
    if client is not None and round_ is not None:
        raise InvalidExperiment(f"client={client}: of clients' own models a run has the last alone; leave out round")
    experiment = history.experiment
    if ":" in experiment.model.name:  # its code is looked for where the run found it
        experiment = experiment.replace(model=read_run_experiment(history.directory, []).model)
    module = module_of(history.directory, experiment, round_)
    return module if client is None else _of_client(module, client, history, experiment)


def _number_of(name: str, history: History) -> int:
    names = history.directory / "partition.json"
    try:
        known = LabelSpread.model_validate_json(names.read_bytes()).clients or []
    except (ValidationError, OSError) as error:
        raise BrokenRun(f"client={name!r}: {names} cannot be read: {error}") from error
    if name not in known:
        told = nearest(name, known) if known else "the run knows its clients by their numbers alone"
        raise InvalidExperiment(f"client={name!r}: there is no client of this name; {told}")
    return known.index(name)


def _of_client(module: nn.Module, client: int | str, history: History, experiment: Experiment) -> nn.Module:
    method, clients = experiment.method.on(module), experiment.data.clients
    if isinstance(client, str):
        client = _number_of(client, history)
    if not method.is_personal:
        raise InvalidExperiment(
            f"client={client}: {method.algorithm.name} gives clients no models of their own; all use the global one, "
            "model()"
        )
    if not 0 <= client < clients:
        raise InvalidExperiment(f"client={client}: the run has clients 0 to {clients - 1}")
    layout = Layout.with_statistics(module)
    start = layout.flatten(initial_module(history.directory, experiment))
    checkpoints = Checkpoints(history.directory / "checkpoint", history.experiment)
    try:
        state = checkpoints.client_state(client, method.client_state(start))
    except BrokenRun as error:
        raise BrokenRun(f"client={client}: its model is not in {history.directory}: {error}") from error
    layout.write(module, method.personal(layout.flatten(module), state))
    return module
