"""The installed `fedopt` command, as a user runs it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from fedopt.commands.cli import main
from tests.warm import COMMAND, warmed

FEDOPT = [sys.executable, "-m", "fedopt"]


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def fedopt(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end; `env` is added to the environment."""
    return subprocess.run(
        [*COMMAND, "fedopt", *map(str, arguments)],
        cwd=cwd,
        env=warmed({**environment(), **(env or {})}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def fedopt_anew(*arguments: str | Path, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The same from nothing, for what is looked up once in a process, as installed packages are."""
    return subprocess.run(
        [*FEDOPT, *map(str, arguments)],
        cwd=cwd,
        env={**environment(), **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def fedopt_here(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same in a process forked from this one, which has loaded torch: for commands that do not train."""
    command = ["fedopt", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = multiprocessing.get_context("fork").Process(target=_become, args=(command, cwd, out, err))
        process.start()
        process.join(timeout=300)
        out.seek(0)
        err.seek(0)
        assert process.exitcode is not None, "it did not end within five minutes"
        return subprocess.CompletedProcess(command, process.exitcode, out.read(), err.read())


def _become(command: list[str], cwd: Path, out: IO[str], err: IO[str]) -> None:
    for file, number in ((out, 1), (err, 2)):
        os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.environ.update(environment())
    os.chdir(cwd)
    sys.argv = command
    main()


def start(arguments: Sequence[str | Path], cwd: Path | None = None, own_group: bool = False) -> subprocess.Popen[str]:
    """Starts the command from nothing and returns at once.

    With `own_group`, os.killpg reaches it with all its processes.
    """
    return subprocess.Popen(
        [*FEDOPT, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=own_group,
    )


def start_warm(arguments: Sequence[str | Path], cwd: Path | None = None) -> subprocess.Popen[str]:
    """Starts the command from the process that has loaded torch. Ctrl-C reaches it; SIGKILL does a moment later."""
    return subprocess.Popen(
        [*COMMAND, "fedopt", *map(str, arguments)],
        cwd=cwd,
        env=warmed(environment()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
