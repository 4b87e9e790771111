"""Many clients on one machine, started at once: torch is loaded a single time, and each client is a fork of that.

    python -m clients.deployed.local_clients        and on standard input, as one line of JSON, what is to be done

Every client is a process with a connection, data and state of its own. All end when standard input does, and so
never outlive whoever started them.
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

from clients.deployed.client import read_data
from clients.deployed.connection import Credentials
from clients.deployed.node import Node, NodeConfig
from fedopt.errors import FedoptError
from fedopt.runs.directory import read_run_experiment


@dataclass(frozen=True)
class Orders:
    """The line on standard input."""

    address: str
    run: str
    """The run's directory, for its experiment."""
    clients: int
    log: str
    """A file for what the clients say."""
    config: NodeConfig


def main() -> int:
    """Forks the clients and waits for them; 1 if any of them failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, who says when it is over
    torch.optim.SGD([torch.zeros(1)])  # the first optimizer of a process loads torch._dynamo, for a second or more
    line = sys.stdin.readline()
    if not line:
        return 0  # whoever started this has changed their mind
    orders = Orders(**json.loads(line))
    log = os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    experiment = read_run_experiment(Path(orders.run), [])
    read_data(experiment.data, experiment.run.seed)  # kept, and shared by all forks
    config = {**orders.config, "allow-model": experiment.model.name}  # it is the experiment of this machine's user
    children: list[int] = []
    for client in range(orders.clients):
        child = os.fork()
        if child == 0:
            os._exit(_live(orders.address, {**config, "partition-id": client}))
        children.append(child)
    threading.Thread(target=_end_with_input, args=(children,), daemon=True).start()
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return int(any(statuses))


def _live(address: str, config: NodeConfig) -> int:
    client = config["partition-id"]
    try:
        Node(
            address, Credentials(None, None), config, lambda line: print(f"client {client}: {line}", flush=True)
        ).live()
    except FedoptError as error:
        print(f"client {client}: {error}", flush=True)
        return 1
    except Exception:  # the last line of a forked process: nothing above it would report this
        traceback.print_exc()
        return 1
    return 0


def _end_with_input(children: list[int]) -> None:
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
