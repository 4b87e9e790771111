"""Servers and clients as real processes that a test can wait for and kill, and tests that run in their own process."""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec

from server.bench import descendants as descendants
from tests.commands import environment
from tests.warm import COMMAND, warmed

P = ParamSpec("P")

ROOT = Path(__file__).parents[1]
PATIENCE = 90.0
"""Seconds within which anything that a test waits for must happen, even on a busy machine."""


def apart_in(process: str, method: str = "fork") -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Runs a test in a second process, shared by all tests that name it, so that its side effects stay there.

    A forked process starts at once. One that is spawned imports everything anew, and does not inherit locks that
    threads of this process hold.
    """

    def decorate(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            _another_process(process, method).submit(_run_test, test.__module__, test.__name__, args, kwargs).result()

        return run

    return decorate


apart = apart_in("shared")


@functools.cache
def _another_process(name: str, method: str) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method))


def _run_test(module: str, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    getattr(importlib.import_module(module), name).__wrapped__(*args, **kwargs)


class Process:
    """One `fedopt ...` command, whose output goes to a file."""

    def __init__(self, arguments: list[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._log, self._pid_file = log, log.with_suffix(".pid")
        with open(log, "wb") as stream:
            self.popen = subprocess.Popen(
                [*COMMAND, "fedopt", *map(str, arguments)],
                cwd=ROOT,
                env=warmed({**environment(), **(env or {})}, self._pid_file),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Waits until the output contains the text `times` times."""
        end = time.monotonic() + PATIENCE
        while self.output.count(text) < times:
            assert time.monotonic() < end, f"never printed {text!r}:\n{self._everything()}"
            assert self.popen.poll() is None or self.output.count(text) >= times, f"ended:\n{self.output}"
            time.sleep(0.02)

    def wait(self) -> int:
        """Waits for the end; the exit status."""
        try:
            return self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end:\n{self._everything()}") from None

    def _everything(self) -> str:
        """The output of all processes of this test."""
        logs = sorted(self._log.parent.glob("*.log"))
        return "\n".join(f"--- {log.name}{' (this one)' * (log == self._log)}\n{log.read_text()}" for log in logs)

    @property
    def pid(self) -> int:
        """The process number of the command."""
        return pid_in(self._pid_file)

    def kill(self) -> None:
        """Like kill -9."""
        if self.popen.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.popen.wait()

    def interrupt(self) -> None:
        """Like Ctrl-C."""
        self.popen.send_signal(signal.SIGINT)


class LocalClients:
    """Clients 0 to N - 1 as forks of one process, which start faster than separate commands."""

    def __init__(self, address: str, run: Path, state: Path, count: int, log: Path, env: Mapping[str, str]) -> None:
        self._log, self._count = log, count
        end = time.monotonic() + PATIENCE
        while not (run / "experiment.toml").exists():
            assert time.monotonic() < end, f"{run} never appeared"
            time.sleep(0.02)
        self._pid_file = log.with_suffix(".pid")
        self._process = subprocess.Popen(
            [*COMMAND, "local_clients"],
            cwd=ROOT,
            env=warmed({**environment(), **env}, self._pid_file),
            stdin=subprocess.PIPE,
        )
        config = {"state": str(state), "device": "cpu"}
        order = {"address": address, "run": str(run), "clients": count, "log": str(log), "config": config}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    @property
    def output(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + PATIENCE
        while text not in self.output:
            assert time.monotonic() < end, f"never printed {text!r}:\n{self.output}"
            time.sleep(0.02)

    def kill(self, client: int) -> None:
        """kill -9 of one client."""
        os.kill(sorted(descendants(pid_in(self._pid_file)))[client], signal.SIGKILL)

    def wait(self) -> int:
        """Waits for the end; 0 if every client was dismissed."""
        return self._process.wait(PATIENCE)

    def clear(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Processes:
    """The processes of one test, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._processes: list[Process] = []
        self._groups: list[LocalClients] = []

    def start(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Process:
        process = Process(list(arguments), self.folder / f"{len(self._processes)}.log", env)
        self._processes.append(process)
        return process

    def server(self, *arguments: str | Path) -> Process:
        return self.start("server", "--listen", self.address, *arguments)

    def client(self, number: int, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Process:
        state = ("--state", self.folder / "state")
        return self.start("client", "--server", self.address, "--client", str(number), *state, *arguments, env=env)

    def local_clients(self, run: Path, count: int, env: Mapping[str, str] | None = None) -> LocalClients:
        """Starts `count` clients for the run that a server has started in `run`."""
        log = self.folder / f"group-{len(self._groups)}.log"
        self._groups.append(LocalClients(self.address, run, self.folder / "state", count, log, env or {}))
        return self._groups[-1]

    def clear(self) -> None:
        for process in self._processes:
            process.kill()
        for group in self._groups:
            group.clear()


@contextmanager
def running_processes(folder: Path) -> Iterator[Processes]:
    processes = Processes(folder)
    try:
        yield processes
    finally:
        processes.clear()


def pid_in(file: Path) -> int:
    """The process number that the file holds, or will hold at once."""
    end = time.monotonic() + PATIENCE
    while not (file.exists() and file.read_bytes()):
        assert time.monotonic() < end, f"{file} never appeared"
        time.sleep(0.01)
    return int(file.read_bytes())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def alive(pids: set[int]) -> set[int]:
    """Processes that still run, without zombies."""
    left = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            left.add(pid)
    return left
