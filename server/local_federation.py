"""A whole federation on this machine: the server in this process, its clients in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedopt.runs.directory import RunDirectory
from fedopt.runs.history import History
from fedopt.runs.runner import Observer
from fedopt.runs.setup import Setup
from server.deployment import conduct
from server.local_clients import Nursery
from server.server_log import LeftOut, journal
from server.superlink import SuperLink

HOST = "127.0.0.1"


def run_locally(
    nursery: Nursery,
    directory: RunDirectory,
    setup: Setup,
    tell: Callable[[str], None],
    observers: Sequence[Observer],
) -> History:
    """Starts server and clients, and plays the run."""
    with (
        journal(directory.path / "server.log"),
        SuperLink(f"{HOST}:0", None, None, tell, setup.vector_bytes) as superlink,
    ):
        nursery.start(directory, f"{HOST}:{superlink.port}")
        return conduct(
            directory,
            setup,
            superlink.line,
            owners={},
            tell=tell,
            observers=[*observers, LeftOut()],
            command="fedopt federation",
            check=nursery.check,
        )
