"""The files that a benchmark writes: a line of JSON, a table in Markdown, a figure.

DIR/engine.jsonl   one line per measurement, the newest last
DIR/engine.md      the table of the newest measurement
DIR/engine.svg     its ratios as bars
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from fedopt.storage.files import replace_file
from simulations.benchmarks.engine import Cell, as_json, machine
from simulations.benchmarks.profile import Profile


def write_results(folder: Path, cells: Sequence[Cell], profiles: Sequence[Profile] = ()) -> None:
    """Adds the measurement to the folder's files; makes the folder if necessary."""
    line = {"date": date.today().isoformat(), **as_json(cells)}
    append(folder / "engine.jsonl", line | ({"profiles": [asdict(own) for own in profiles]} if profiles else {}))
    write_table(folder, cells)
    draw(cells, folder / "engine.svg")


def write_table(folder: Path, cells: Sequence[Cell]) -> None:
    """Writes the table so far. It is called after each cell, because a measurement can take an hour."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "engine.md", markdown(cells).encode())


def append(file: Path, line: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


def markdown(cells: Sequence[Cell]) -> str:
    """Ratios to the plain loop, model by model; batch and optimizer in rows."""
    models = list(dict.fromkeys(cell.model for cell in cells))
    rows = list(dict.fromkeys((cell.optimizer, cell.batch) for cell in cells))
    at = {(cell.optimizer, cell.batch, cell.model): cell for cell in cells}
    lines = ["| | " + " | ".join(models) + " |", "|---|" + "---|" * len(models)]
    for optimizer, batch in rows:
        entries = [_text(at.get((optimizer, batch, model))) for model in models]
        lines.append(f"| {optimizer}, batch {batch} | " + " | ".join(entries) + " |")
    return "\n".join([*lines, "", signature(cells[0].setting.device), ""])


def _text(cell: Cell | None) -> str:
    return "" if cell is None else f"{cell.ratio:.1f} ({cell.ratio_min:.1f}-{cell.ratio_max:.1f})"


def signature(device: str = "cpu") -> str:
    """The date and machine of a measurement."""
    about = machine(device)
    gpu = f", {about['gpu']}" if "gpu" in about else ""
    return f"{date.today()}, {about['processor']}, {about['cores']} cores{gpu}, torch {about['torch']}"


def draw(cells: Sequence[Cell], file: Path) -> None:
    """Writes a figure of the ratios as bars, with their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [f"{cell.model}\n{cell.optimizer}, {cell.batch}" for cell in cells]
    ratios = [cell.ratio for cell in cells]
    spread = [[c.ratio - c.ratio_min for c in cells], [c.ratio_max - c.ratio for c in cells]]
    figure, axes = pyplot.subplots(figsize=(max(4.0, 0.8 * len(cells)), 3.2))
    axes.bar(range(len(cells)), ratios, yerr=spread, color="#0072B2", capsize=3)
    axes.axhline(1.0, color="#D55E00", linestyle="--")
    axes.set_xticks(range(len(cells)), names, fontsize=7)
    axes.set_ylabel("steps a second, plain loop = 1")
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
