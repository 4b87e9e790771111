"""Measures the seconds per round of a deployed federation with trivial clients: the cost of the federation itself.

Resident clients are those of `fedopt federation`. Stock clients are Flower's own: `flwr run` on a SuperLink with
SuperNodes, with the same app and experiment.
"""

from __future__ import annotations

import io
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fedopt.errors import RunStopped
from fedopt.flower_version import flower_version
from fedopt.runs.history import RoundRecord
from server.superlink import app_bundle

STOCK_ROUNDS, STOCK_SECONDS = 3, 300.0

STOCK_NODES_SPEAK_HTTP = (1, 40)
"""From this version of Flower, stock SuperNodes speak HTTP and connect to the one port of a stock SuperLink."""


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    clients: int
    nodes: str
    """resident, or stock."""
    round_seconds: float
    """The median over rounds without the first."""
    round_min: float
    round_max: float
    first_round_seconds: float
    """From the command's start until the first round is done."""
    server_mib: float | None
    """The server's peak memory, measured for resident clients only."""


def measure_resident(clients: int, rounds: int) -> Cell:
    """Measures `fedopt federation` as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        arguments = [f"--set={key}" for key in _settings(clients, rounds)]
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "fedopt", "federation", "--quiet", "--out", str(run), *arguments]
        )
        first: float | None = None
        peak: float | None = None
        while process.poll() is None:
            if first is None and (run / "metrics.jsonl").exists():
                first = time.monotonic() - start
            peak = _peak_mib(process.pid) or peak
            time.sleep(0.01)
        if process.wait() or first is None:
            raise RunStopped(f"the federation of {clients} clients failed")
        return _cell(clients, "resident", run, first, peak)


def measure_stock(clients: int) -> Cell:
    """Measures Flower's SuperLink, SuperNodes and `flwr run` with the same app and experiment."""
    with tempfile.TemporaryDirectory() as folder, stock_processes(Path(folder), clients) as environment:
        run, app = Path(folder) / "run", Path(folder) / "app"
        config = " ".join([f'out="{run}"', f"set='{' '.join(_settings(clients, STOCK_ROUNDS))}'"])
        start = time.monotonic()
        _check(["flwr", "run", str(app), "bench", "--run-config", config], environment)
        first: float | None = None
        while len(_records(run)) < STOCK_ROUNDS:
            if first is None and _records(run):
                first = time.monotonic() - start
            if time.monotonic() - start > STOCK_SECONDS:
                raise RunStopped(
                    f"{clients} stock SuperNodes did not complete {STOCK_ROUNDS} rounds in {STOCK_SECONDS:g} s"
                )
            time.sleep(0.1)
        return _cell(clients, "stock", run, first or time.monotonic() - start, None)


def _settings(clients: int, rounds: int) -> list[str]:
    return [
        *("data.name=synthetic", "data.partition=iid", f"data.clients={clients}", "model.name=logistic"),
        *("local.steps=1", f"run.rounds={rounds}", "run.participation=1.0", f"run.eval_every={rounds}"),
        "run.device=cpu",
    ]


def _records(run: Path) -> list[RoundRecord]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [RoundRecord.model_validate_json(line) for line in lines]


def _cell(clients: int, nodes: str, run: Path, first: float, mib: float | None) -> Cell:
    seconds = [record.seconds for record in _records(run)][1:]
    return Cell(clients, nodes, statistics.median(seconds), min(seconds), max(seconds), first, mib)


@contextmanager
def stock_processes(
    folder: Path, clients: int, superlink: str | None = None, keys: Path | None = None, node_config: str = ""
) -> Iterator[dict[str, str]]:
    """Starts stock SuperNodes, connected to the SuperLink at the given address or to a stock one that it starts too.

    With `keys`, a folder made by `fedopt keys`, they use TLS and client keys. `node_config` is added to each node's.
    Yields the environment in which `flwr` finds the stock SuperLink as "bench".
    """
    http = flower_version() >= STOCK_NODES_SPEAK_HTTP
    control, fleet, *own = (_free_port() for _ in range(clients + 2))
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "FLWR_HOME": str(folder / "home"), "PATH": f"{binaries}:{os.environ.get('PATH', '')}"}
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{control}"\ninsecure = true\n'
    )
    with zipfile.ZipFile(io.BytesIO(app_bundle())) as bundle:
        bundle.extractall(folder / "app")
    processes: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with open(folder / f"{len(processes)}.log", "wb") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    try:
        if superlink is None:
            superlink = f"127.0.0.1:{control if http else fleet}"
            start(
                *("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(control)),
                *(() if http else ("--fleet-api-address", superlink)),
                "--disable-runtime-dependency-installation",
            )
            _until(lambda: _listens(control) and (http or _listens(fleet)), "SuperLink")
        for client, port in enumerate(own):
            security = ["--insecure"]
            if keys is not None:
                security = ["--root-certificates", str(keys / "ca.crt")]
                security += ["--auth-supernode-private-key", str(keys / f"client-{client}.key")]
            start(
                *("flower-supernode", *security, "--superlink", superlink, "--host", "127.0.0.1"),
                *("--port", str(port), "--node-config", f"partition-id={client} {node_config}".strip()),
            )
        yield environment
    finally:
        family = [child for process in processes for child in descendants(process.pid)]  # some run in their own session
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in family:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def descendants(pid: int) -> set[int]:
    """All descendants of the process `pid`; empty on systems without /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def _peak_mib(pid: int) -> float | None:
    """The peak memory of a process; None on systems without /proc."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) / 1024 if found else None
    return None


def _check(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunStopped(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-300:]}")


def _until(there: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not there():
        if time.monotonic() > end:
            raise RunStopped(f"{what} does not start")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def machine() -> dict[str, object]:
    return {"cores": os.cpu_count(), "python": platform.python_version(), "processor": platform.machine()}
