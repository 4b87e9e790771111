"""`python -m tests.docs.flatness DIR` prints the table of docs/results.md from the directory of `fedopt study flatness`
whose runs were analyzed by `fedopt analyze sharpness`."""

from __future__ import annotations

import json
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
    "worst rise, ρ 0.05": lambda found: found["worst"]["2"],
    "average rise, ρ 0.05": lambda found: found["average"],
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
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.2g}"
    return f"{spread.mean:.3g}{deviation}"


if __name__ == "__main__":
    headers = ("method", "test accuracy, %", *MEASURES)
    for cells in (headers, ["---"] * len(headers), *rows(read_results([Path(sys.argv[1])]))):
        print("| " + " | ".join(cells) + " |")
