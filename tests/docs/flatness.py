"""`python -m tests.docs.flatness DIR` prints the table of docs/results.md from the directory of `fedopt study flatness`
whose runs were analyzed by `fedopt analyze sharpness`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from simulations.comparison import percent
from simulations.results import Group, Results, Row, Spread, read_results

FILE = Path("analysis") / "sharpness.json"

MEASURES: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "training loss": lambda found: found["loss"],
    "λ_max": lambda found: found["largest"][0],
    "trace": lambda found: found["trace"],
    "worst rise": lambda found: found["worst"]["2"],
    "noise scale": lambda found: found["noise_scale"],
}


def rows(results: Results) -> Iterator[Sequence[str]]:
    for group in results.groups:
        yield group.labels["method"], percent(group.spread(lambda row: row.accuracy)), *_measured(group)


def _measured(group: Group) -> Iterator[str]:
    found = [numbers for row in group.finished if (numbers := _numbers(row)) is not None]
    for value in MEASURES.values():
        values = [number for numbers in found if (number := value(numbers)) is not None]
        yield _text(Spread.of(values)) if values else "-"


def _numbers(row: Row) -> dict[str, Any] | None:
    file = row.run.path / FILE
    return json.loads(file.read_bytes())["numbers"] if file.is_file() else None


def _text(spread: Spread) -> str:
    """With two digits of the deviation, and as many decimals of the mean."""
    if not spread.deviation:
        return f"{spread.mean:.3g}"
    decimals = max(0, 1 - math.floor(math.log10(spread.deviation)))
    return f"{spread.mean:.{decimals}f} ± {spread.deviation:.{decimals}f}"


if __name__ == "__main__":
    headers = ("method", "test accuracy, %", *MEASURES)
    for cells in (headers, ["---"] * len(headers), *rows(read_results([Path(sys.argv[1])]))):
        print("| " + " | ".join(cells) + " |")
