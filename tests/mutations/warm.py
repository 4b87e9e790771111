"""Calls of pytest in forks of a process that has imported what the project needs from others, and nothing of its own.

Importing torch and its like takes seconds, most of what a short run of tests costs; a mutation must not wait for it.
Run by `checkout`, as a script and in the folder of a copy: a line of JSON on standard input is one call, its answer a
line on standard output.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

NOT_HERE = {"ray", "selenium", "matplotlib", "tensorboard"}
"""What few tests need, or what does not outlive a fork."""


def needed(folder: Path) -> set[str]:
    """Modules that the files of a project import from others where they begin."""
    files = [file for file in folder.rglob("*.py") if "mutations" not in file.parts]
    own = {path.name for path in folder.iterdir() if path.is_dir()} | {file.stem for file in folder.glob("*.py")}
    names: set[str] = set()
    for file in files:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return {name for name in names if name.partition(".")[0] not in own | NOT_HERE}


def call(arguments: list[str], output: str, seconds: float) -> int | None:
    """pytest's exit status; None if it did not end in time and was killed, with all processes that it started."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, stream in ((nothing, 0), (sink, 1), (sink, 2)):
            os.dup2(number, stream)
        sys.argv = ["pytest", *arguments]
        status = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # an orderly exit would wait for threads of imported packages, which a fork does not have
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what a test may have left behind


def main() -> None:
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # as the project sets it before it imports Flower
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    for name in sorted(needed(Path.cwd())):
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # an extra that is not installed; its tests say so
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--noconftest", "--markers"])  # imports pytest's plugins
    print("ready", flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        print(json.dumps(call(wanted["arguments"], wanted["output"], wanted["seconds"])), flush=True)


if __name__ == "__main__":
    main()
