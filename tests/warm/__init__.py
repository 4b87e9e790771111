"""Commands of tests and pages, forked from a process that has imported torch and fedopt already.

They are processes of their own, with the arguments, the folder, the environment and the files that they are given, and
they end as any command does. That `fedopt` starts from nothing, too, is tested where it matters: packaging, shadowing,
and signals that come while it starts.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.warm import shim

ROOT = Path(__file__).parents[2]
SHIM = ROOT / "tests" / "warm" / "shim.py"

COMMAND = (sys.executable, "-I", "-S", str(SHIM))
"""Followed by `fedopt` and its arguments, in an environment of `warmed`."""


def warmed(environment: Mapping[str, str], pid_file: Path | None = None) -> dict[str, str]:
    """The environment for COMMAND; the command itself gets `environment` alone.

    `pid_file` is where to write the command's process number, which is not that of COMMAND.
    """
    numbered = {} if pid_file is None else {shim.PID_FILE: str(pid_file)}
    return {**environment, shim.SOCKET: _place(), **numbered}


@functools.cache
def _place() -> str:
    """Where the process listens, which is started the first time."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))  # short, as a socket's path must be
    place = folder / "socket"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.warm.server", str(place)],
        cwd=ROOT,
        # Tests run in parallel; more threads than cores would only wait for each other.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    ready = server.stdout.readline()
    assert ready == "ready\n", f"the process that commands are forked from printed {ready!r}"
    atexit.register(_end, server, folder, os.getpid())
    return str(place)


def _end(server: subprocess.Popen[str], folder: Path, owner: int) -> None:
    if os.getpid() != owner:  # a process that was forked from the test's
        return
    assert server.stdin is not None
    server.stdin.write("end\n")  # not only the end of file: processes that tests forked may hold the pipe open
    server.stdin.close()
    server.wait(timeout=30)
    (folder / "socket").unlink()
    folder.rmdir()
