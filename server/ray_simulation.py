"""Runs the experiment in Flower's own simulation on Ray, for a cluster of machines that share their files.

It uses the same ServerApp loop and the same ClientApp as a deployment; Ray's actors play the clients in turn. On one
machine the embedded engine is many times faster (README).
"""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedopt.errors import InvalidExperiment, RunStopped
from fedopt.experiment.experiment import Experiment
from fedopt.logs import log_to
from fedopt.registry import load_attribute
from fedopt.runs.directory import RunDirectory
from fedopt.runs.history import History
from fedopt.runs.observers import AnyObserver
from fedopt.runs.setup import Setup
from server.deployment import open_run, run_deployed
from server.links import PolledLink
from server.options import DeploymentOptions

CLIENT_APP = "clients.app:make_app"
"""Loaded by name, as in pyproject.toml, because server/ does not import clients/."""

GPU_SHARE = 0.25
"""The share of a GPU for each actor, on machines with a GPU."""


def run(experiment: Experiment, out: Path | None = None, observers: Sequence[AnyObserver] = ()) -> History:
    """Runs the experiment into `out` (a new directory below runs/ by default)."""
    _check_ray()
    with open_run(experiment, out, None, []) as (directory, setup):
        return _simulate(directory, setup, observers)


def resume(path: Path, overrides: list[str], observers: Sequence[AnyObserver] = ()) -> History:
    """Continues the run at `path` from its last checkpoint."""
    _check_ray()
    with open_run(None, None, path, overrides) as (directory, setup):
        return _simulate(directory, setup, observers)


def _check_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise InvalidExperiment("--engine ray: Ray is not installed; install it with pip install 'fedopt[ray]'")


def _simulate(directory: RunDirectory, setup: Setup, observers: Sequence[AnyObserver]) -> History:
    log_to(directory.path / "server.log")
    histories: list[History] = []
    server_app = ServerApp()

    with _interruptible() as check:

        @server_app.main()
        def main(grid: Grid, context: Context) -> None:
            options = DeploymentOptions(
                "fedopt run --engine ray",
                lambda line: None,
                observers=observers,
                engine="ray",
                check=check,
            )
            history = run_deployed(directory, setup, PolledLink(grid), options)
            histories.append(history)

        try:
            run_simulation(
                server_app,
                _client_app(directory),
                num_supernodes=directory.experiment.data.clients,
                backend_config=_backend(directory.experiment),
            )
        except RuntimeError as error:  # Flower raises RuntimeError for anything that goes wrong with Ray
            raise RunStopped(
                f"Flower's simulation on Ray failed; see {directory.path / 'server.log'} for the reason"
            ) from error
    return histories[0]


def _client_app(directory: RunDirectory) -> ClientApp:
    """The app with its paths as defaults, so that they also reach the actors of a cluster."""
    make_app = cast(Callable[[Mapping[str, str]], ClientApp], load_attribute(CLIENT_APP))
    return make_app(
        {
            "state": str(directory.path.absolute() / "client-state"),
            **({} if directory.experiment.data.path is None else {"data-path": str(directory.experiment.data.path)}),
            "device": directory.experiment.run.device,
        }
    )


def _backend(experiment: Experiment) -> dict[str, Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    uses_gpu = experiment.run.device != "cpu" and torch.cuda.is_available()
    return {
        "init_args": {"include_dashboard": False},
        "client_resources": {"num_cpus": 1, "num_gpus": GPU_SHARE if uses_gpu else 0.0},
    }


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Passes Ctrl-C on to the thread in which Flower runs the server: the yielded function raises it there."""
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    try:
        yield check
    finally:
        stop.set()  # if Ray has failed, the server's thread must stop waiting for clients
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
