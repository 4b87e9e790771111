"""An experiment with a model that Python code passes: `fedopt.run(experiment, model=...)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from torch import Tensor, nn

from fedopt.errors import BrokenRun, InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.imports import remember
from fedopt.models.own import OwnModel
from fedopt.runs.directory import INITIAL, read_run_experiment
from fedopt.storage.tensor_file import read_tensors
from fedopt.vectors.layout import state_of_module

Module = nn.Module | Callable[..., nn.Module]
"""A module, or a function of `sample_shape` and `classes` that returns one."""

Model = Module | tuple[Module, str | Callable[..., Tensor]]
"""A module or function, or a pair of it and its loss: a function or module of logits and class indices, or a name."""

KEYS = ("loss", "label_smoothing", "class_weights", "weights", "batchnorm")
"""Keys of [model] that belong to any model."""


def with_model(experiment: Experiment, model: Model | None, engine: str = "embedded") -> Experiment:
    """The experiment with this module or function as its model; unchanged where `model` is None."""
    if model is None:
        return experiment
    module, loss = _parts(model)
    keys = {key: value for key in KEYS if (value := getattr(experiment.model, key)) not in (None, "refuse")}
    own = OwnModel.of(module, **keys, **loss)
    if engine != "embedded":
        raise InvalidExperiment(
            f"engine: {engine} trains in processes that do not see the objects of this one; leave out engine, or put "
            'the model into a module and name it in the experiment: model={"name": "my_module:make"}'
        )
    return experiment.replace(model=own)


def _parts(model: Model) -> tuple[Module, dict[str, str]]:
    """The module or function, and the key that names its loss, if it comes with one."""
    if not isinstance(model, tuple):
        return model, {}
    if len(model) != 2 or not (isinstance(model[1], str) or callable(model[1])) or isinstance(model[1], type):
        raise InvalidExperiment("model=: a pair is (model, loss), with a function or an object such as nn.NLLLoss()")
    module, loss = model
    return module, {"loss": loss if isinstance(loss, str) else remember(loss)}


def _of_run(directory: Path) -> Experiment:
    return read_run_experiment(directory, [])


@contextmanager
def resuming_with(directory: Path, model: Model | None, read: Callable[[Path], Experiment] = _of_run) -> Iterator[None]:
    """While this lasts, the run in this directory finds its model: the same module or function, or one like it.

    A module may have other weights than at the start: those of the run are used. InvalidExperiment if the run was begun
    with another model. `read` reads the experiment of a run directory.
    """
    found = None if model is None else _begun_with(directory, model, read)
    yield
    del found  # experiments that were read meanwhile hold it, too


def _begun_with(directory: Path, pair: Model, read: Callable[[Path], Experiment]) -> OwnModel:
    model, loss = _parts(pair)  # before the experiment is read, which names the loss
    begun = read(directory).model
    if not isinstance(begun, OwnModel):
        raise InvalidExperiment(f"{directory} was begun with {begun.name}, which it builds itself; leave out model=")
    given = OwnModel.of(model, begun.code, **loss)
    if given.kind != begun.kind or bool(given.sha256) != bool(begun.sha256):
        raise InvalidExperiment(f"{directory} was begun with {begun.kind}, and model= is {given.kind}; pass the former")
    if loss.get("loss", begun.loss) != begun.loss:
        began = f"the loss {begun.loss}" if begun.loss else "a model alone"
        raise InvalidExperiment(f"{directory} was begun with {began}, and model= has {loss['loss']}; pass the former")
    if not isinstance(model, nn.Module) or given.sha256 == begun.sha256:
        return given
    module = deepcopy(model)
    try:
        module.load_state_dict(read_tensors(directory / INITIAL, state_of_module(module), {}))
    except BrokenRun as error:
        raise InvalidExperiment(f"model=: it is not the {begun.kind} that the run began with: {error}") from error
    return OwnModel.of(module, begun.code, **loss)
