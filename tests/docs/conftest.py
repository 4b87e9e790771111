"""The folder in which pages find `fedopt`, and the process that serves it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs import shim
from tests.docs.blocks import ROOT

Runner = Callable[[Path, Path], "subprocess.CompletedProcess[str]"]

SHIM = ROOT / "tests" / "docs" / "shim.py"

LONGEST = 540
"""Seconds that a page may take on a shared machine."""


@pytest.fixture(scope="session")
def run_page() -> Iterator[Runner]:
    """Runs a page in a folder, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="pages-") as name:  # short, as a socket's path must be
        folder = Path(name)
        command = folder / "fedopt"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{SHIM}" fedopt "$@"\n')
        command.chmod(0o755)
        place = folder / "socket"
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]),
            shim.SOCKET: str(place),
            "OMP_NUM_THREADS": "1",  # tests run in parallel; more threads than cores would only wait for each other
            "MPLBACKEND": "Agg",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.warm", str(place)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

        def run(page: Path, where: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-I", "-S", SHIM, "page", str(page)],
                cwd=where,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )

        yield run
        server.stdin.write("end\n")  # not only the end of file: processes that tests forked may hold the pipe open
        server.stdin.close()
        server.wait(timeout=30)
