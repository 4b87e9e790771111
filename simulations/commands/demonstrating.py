"""What the commands of `fedopt demo` and `fedopt analyze` share: options, and how a result is printed and written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simulations.analysis.result import Result

DemoOut = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the figure and the numbers.")]
DemoJson = Annotated[bool, typer.Option("--json", help="Print the findings as JSON on standard output.")]

FOLDER = Path("runs/demo")


def present(found: Result, out: Path, as_json: bool) -> None:
    """Writes the files and prints the findings."""
    files = found.write(out)
    if as_json:
        print(json.dumps(found.summary(), ensure_ascii=False))
        return
    print(found.title)
    for sentence in found.findings:
        print(f"  {sentence}")
    print(f"figure and numbers in {out}: {', '.join(file.name for file in files)}")


def present_all(found: Sequence[Result], out: Path, as_json: bool) -> None:
    """Of several results, with --json in one object by their names."""
    if not as_json:
        for result in found:
            present(result, out, as_json)
        return
    for result in found:
        result.write(out)
    print(json.dumps({result.name: result.summary() for result in found}, ensure_ascii=False))


class Clock:
    """Prints to standard error what is computed, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, what: str) -> None:
        print(f"{time.monotonic() - self._start:5.1f} s  {what}", file=sys.stderr)
