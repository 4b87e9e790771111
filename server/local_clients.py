"""Starts the clients of a federation that is all on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from types import TracebackType

from fedopt.errors import RunStopped
from fedopt.runs.directory import RunDirectory

NURSERY = "clients.deployed.local_clients"
"""Started by name, as on any other machine: the server's side imports nothing of the clients'."""


class Nursery:
    """The process whose forks are the clients. Entered early, it loads torch while the server does the same."""

    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, "-m", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        return self

    def start(self, directory: RunDirectory, address: str) -> None:
        """Lets the clients go to the server at `address`."""
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
        with suppress(BrokenPipeError):  # it has ended already, and `check` says so
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def check(self) -> None:
        """RunStopped once all clients have ended before their time."""
        if self._process.poll() is not None:
            raise RunStopped(f"all clients have ended; why is in {self._log}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=3 if error is None else 0)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # which ends those that are left
        self._process.wait()
