"""An experiment on data that Python code passes: `fedopt.run(experiment, data=...)`."""

from __future__ import annotations

from pathlib import Path

from fedopt.data.own import Data
from fedopt.data.sources.memory import Memory
from fedopt.errors import DataUnavailable, InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.runs.directory import read_run_experiment


def with_data(experiment: Experiment, data: Data | None, engine: str = "embedded") -> Experiment:
    """The experiment on these data; unchanged without any.

    Where the data come with clients and the experiment names neither a number of clients nor a partition, their clients
    are its clients.
    """
    if data is None:
        return experiment
    check_data(data)
    if engine != "embedded":
        raise InvalidExperiment(
            f"engine: {engine} trains in processes that do not see arrays of this one; leave out engine, or save the "
            'arrays with numpy.savez and name the file in the experiment: data={"name": "npz", "path": ...}'
        )
    settings = experiment.data.model_copy(update={"name": data.source})
    if settings.partition.needs_clients and "clients" not in settings.given():
        settings = settings.model_copy(update={"clients": data.source.own_clients})
    return experiment.model_copy(update={"data": settings})


def check_resumed_data(directory: Path, data: Data | None) -> None:
    """DataUnavailable if the run in this directory was begun on other data; nothing where no data are passed."""
    if data is None:
        return
    check_data(data)
    source = read_run_experiment(directory, []).data.source
    if not isinstance(source, Memory):
        raise InvalidExperiment(f"{directory} was begun on {source.name}, which it reads itself; leave out data=")
    if source.sha256 != data.source.sha256:
        raise DataUnavailable(
            f"{directory} was begun on arrays with the fingerprint {source.sha256[:12]}, and data= has "
            f"{data.source.sha256[:12]}; pass the arrays that it was begun on, or begin a new run"
        )


def check_data(data: object) -> None:
    if not isinstance(data, Data):
        raise InvalidExperiment(
            f"data=: it must be a fedopt.Data, not {type(data).__name__}; fedopt.Data(x_train, y_train, x_test, "
            "y_test) makes one of arrays, from_pandas of a DataFrame, and from_dataset of torch datasets"
        )
