"""A whole federation on this machine: the server in this process, each client in its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedopt.runs.directory import RunDirectory
from fedopt.runs.history import History
from fedopt.runs.observers import AnyObserver
from fedopt.runs.setup import Setup
from server.deployment import run_deployed
from server.local_clients import LocalClients
from server.options import DeploymentOptions
from server.server_log import journal
from server.superlink import SuperLink

HOST = "127.0.0.1"


def run_locally(
    local_clients: LocalClients,
    directory: RunDirectory,
    setup: Setup,
    report: Callable[[str], None],
    observers: Sequence[AnyObserver],
) -> History:
    """Starts the server and the clients, and completes the run."""
    with (
        journal(directory.path / "server.log"),
        SuperLink(f"{HOST}:0", None, None, report, setup.vector_bytes) as superlink,
    ):
        local_clients.start(directory, f"{HOST}:{superlink.port}")
        options = DeploymentOptions("fedopt federation", report, observers=observers, check=local_clients.check)
        return run_deployed(directory, setup, superlink.link, options)
