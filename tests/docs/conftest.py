"""The folder in which pages find `fedopt`, and the process that serves it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.warm import COMMAND, SHIM, warmed

Runner = Callable[[Path, Path], "subprocess.CompletedProcess[str]"]

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
        own = {
            **os.environ,
            "PATH": os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "OMP_NUM_THREADS": "1",  # tests run in parallel; more threads than cores would only wait for each other
            "MPLBACKEND": "Agg",
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
        }
        environment = warmed(own)

        def run(page: Path, where: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*COMMAND, "page", str(page)],
                cwd=where,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )

        yield run
