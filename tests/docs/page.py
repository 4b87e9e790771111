"""Runs one page in the current folder: `run(page)` in a process of its own."""

from __future__ import annotations

import io
import json
import linecache
import os
import re
import subprocess
import sys
import tomllib
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

from tests.docs.blocks import Block, Kind, PageError, read_page

NUMBER = re.compile(r"\d+(?:\.\d+)?")

TIME = re.compile(r" (s|ms|min|clients/s)\b")
"""What follows a number that is a time or a speed."""

TIMES = "seconds per run"
"""The title of a last column that holds times."""

TOLERANCE = 0.05
"""Another processor rounds otherwise, which changes a measured number a little."""

LONGEST = 280
"""Seconds that a sh block may take on a shared machine."""


def run(page: Path) -> int:
    """Runs the page's blocks; the exit status. What a failed block printed goes to standard error."""
    main = sys.modules["__main__"]  # so that classes of the page are found by name, as those of a notebook
    sys.path.insert(0, os.getcwd())
    printed = ""
    try:
        for block in read_page(page):
            printed = _run(block, main, printed)
    except PageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(block: Block, main: ModuleType, before: str) -> str:
    """Runs the block and returns what it printed; `before` is what the block before it printed."""
    match block.kind:
        case Kind.PYTHON:
            return _python(block, main)
        case Kind.SHELL:
            return _shell(block)
        case Kind.FILE:
            file = Path(block.title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        case Kind.PARSED:
            _parse(block)
        case Kind.CHECKED | Kind.LIKE:
            found = matches if block.kind is Kind.CHECKED else resembles
            if not found(block.text, before):
                raise PageError(f"{block.place}: the block before printed something else:\n{before}")
    return ""


def _python(block: Block, main: ModuleType) -> str:
    printed = io.StringIO()
    source = "\n" * block.line + block.text  # so that a traceback gives the page's lines
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            exec(compile(source, str(block.page), "exec"), main.__dict__)
    except BaseException as error:
        linecache.checkcache()
        trace = "".join(traceback.format_exception(error))
        raise PageError(f"{block.place}: python failed\n{printed.getvalue()}{trace}") from error
    return printed.getvalue()


def _shell(block: Block) -> str:
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PageError(f"{block.place}: sh took more than {LONGEST} s\n{error.stdout!r}") from error
    if done.returncode:
        raise PageError(f"{block.place}: sh ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def _parse(block: Block) -> None:
    from fedopt import Experiment
    from fedopt.errors import FedoptError

    try:
        if block.language == "json":
            json.loads(block.text)
            return
        given = tomllib.loads(block.text)
        if given.keys() <= Experiment.model_fields.keys():
            Experiment(**given)
    except (ValueError, FedoptError) as error:
        raise PageError(f"{block.place}: {block.language}: {error}") from error


def resembles(shown: str, printed: str) -> bool:
    """Whether the page shows what was printed, but for times and for other numbers within the tolerance."""
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    wanted = [line.rstrip() for line in shown.strip("\n").splitlines()]
    in_table = False
    while wanted and lines:
        if wanted[0].strip() == "...":
            rest = wanted[1:]
            return any(resembles("\n".join(rest), "\n".join(lines[skipped:])) for skipped in range(len(lines) + 1))
        in_table = (in_table and "  " in wanted[0]) or wanted[0].endswith(TIMES)
        if not _lines_resemble(wanted.pop(0), lines.pop(0), in_table):
            return False
    return not lines and all(line.strip() == "..." for line in wanted)


def _lines_resemble(shown: str, printed: str, time_last: bool) -> bool:
    if NUMBER.sub("0", shown).split() != NUMBER.sub("0", printed).split():
        return False
    pairs = list(zip(NUMBER.finditer(shown), NUMBER.finditer(printed), strict=True))
    for place, (ours, theirs) in enumerate(pairs):
        is_time = TIME.match(shown, ours.end()) is not None or (time_last and place == len(pairs) - 1)
        wanted, found = float(ours.group()), float(theirs.group())
        if not is_time and abs(wanted - found) > TOLERANCE * max(wanted, found):
            return False
    return True


def matches(shown: str, printed: str) -> bool:
    """Whether the page shows what was printed; three dots stand for any text, alone in a line for any lines."""
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "..." else r".*".join(map(re.escape, line.rstrip().split("..."))) + r" *\n"
        for line in shown.strip("\n").splitlines()
    )
    return re.fullmatch(pattern, printed.strip("\n") + "\n") is not None
