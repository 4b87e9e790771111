"""Starts the clients of a federation whose server runs on the same machine."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from types import TracebackType

from fedopt.errors import RunStopped
from fedopt.runs.directory import RunDirectory

CLIENTS_MODULE = "clients.deployed.local_clients"
"""The module is started by name because server/ does not import clients/."""


class LocalClients:
    """The process that forks the clients. Enter it early: it loads torch while the server does the same."""

    def __enter__(self) -> LocalClients:
        self._process = subprocess.Popen(
            [sys.executable, "-m", CLIENTS_MODULE], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        return self

    def start(self, directory: RunDirectory, address: str) -> None:
        """Makes the clients connect to the server at `address`."""
        experiment = directory.experiment
        self._log = directory.path / "clients.log"
        path = experiment.data.path
        own = [*([] if path is None else [f"data.path={path}"]), f"run.threads={experiment.run.threads}"]
        order = {
            "address": address,
            "run": str(directory.path.absolute()),
            "clients": experiment.data.clients,
            "log": str(self._log.absolute()),
            "config": {
                "state": str(directory.path.absolute() / "client-state"),
                "device": experiment.run.device,
                "set": "\n".join(own),
            },
        }
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended already; `check` reports that
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def check(self) -> None:
        """Raises RunStopped if all clients have ended before the run is complete."""
        if self._process.poll() is not None:
            raise RunStopped(f"all clients have ended; see {self._log} for the reason")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=3 if error is None else 0)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # clients end when their standard input does
        self._process.wait()
