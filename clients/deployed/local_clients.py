"""Many clients on one machine, started at once: torch is loaded a single time, and each client is a fork of that.

    python -m clients.deployed.local_clients        with a `LaunchRequest` as one line of JSON on standard input

Every client is a process with its own connection, data and state. All clients end when standard input is closed, so
they never outlive the process that started them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from clients.app import CLIENTS
from clients.deployed.connection import Credentials
from clients.deployed.node import Node, NodeConfig
from fedopt.errors import FedoptError
from fedopt.family import outside_names
from fedopt.runs.directory import read_run_experiment


@dataclass(frozen=True)
class LaunchRequest:
    """The line on standard input."""

    address: str
    run: str
    """The run's directory, for its experiment."""
    clients: int
    log: str
    """A file for the clients' output."""
    config: NodeConfig


def main() -> int:
    """Forks the clients and waits for them; 1 if any of them failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then dismisses the clients
    torch.optim.SGD(
        [torch.zeros(1)]
    )  # the first optimizer of a process loads torch._dynamo, which takes a second or more
    line = sys.stdin.readline()
    if not line:
        return 0  # the caller closed standard input without a request
    request = LaunchRequest(**json.loads(line))
    log = os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    experiment = read_run_experiment(Path(request.run), [])
    CLIENTS.data(experiment.data, experiment.run.seed)  # all forks share them
    # The experiment was written by this machine's user.
    config = {**request.config, "allow-code": "\n".join(outside_names(experiment))}
    children: list[int] = []
    for client in range(request.clients):
        child = os.fork()
        if child == 0:
            os._exit(_run_client(request.address, {**config, "partition-id": client}))
        children.append(child)
    threading.Thread(target=_end_with_input, args=(children,), daemon=True).start()
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return int(any(statuses))


def _run_client(address: str, config: NodeConfig) -> int:
    client = config["partition-id"]
    try:
        Node(address, Credentials(None, None), config, lambda line: print(f"client {client}: {line}", flush=True)).run()
    except FedoptError as error:
        print(f"client {client}: {error}", flush=True)
        return 1
    except Exception:  # nothing above this function reports errors of a forked process
        traceback.print_exc()
        return 1
    return 0


def _end_with_input(children: list[int]) -> None:
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
