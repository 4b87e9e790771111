"""What a benchmark leaves behind: a line of JSON for machines, a table for a README, a figure.

DIR/engine.jsonl   one line a measurement, newest last
DIR/engine.md      the table of the newest
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


def leave(folder: Path, cells: Sequence[Cell], profiles: Sequence[Profile] = ()) -> None:
    """Adds this measurement to the folder, which is made if need be."""
    line = {"date": date.today().isoformat(), **as_json(cells)}
    append(folder / "engine.jsonl", line | ({"profiles": [asdict(own) for own in profiles]} if profiles else {}))
    note(folder, cells)
    draw(cells, folder / "engine.svg")


def note(folder: Path, cells: Sequence[Cell]) -> None:
    """The table as far as it is known; a measurement can take an hour."""
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
        shown = [_told(at.get((optimizer, batch, model))) for model in models]
        lines.append(f"| {optimizer}, batch {batch} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", signature(cells[0].setting.device), ""])


def _told(cell: Cell | None) -> str:
    return "" if cell is None else f"{cell.ratio:.1f} ({cell.ratio_min:.1f}-{cell.ratio_max:.1f})"


def signature(device: str = "cpu") -> str:
    """When and on what something was measured."""
    about = machine(device)
    gpu = f", {about['gpu']}" if "gpu" in about else ""
    return f"{date.today()}, {about['processor']}, {about['cores']} cores{gpu}, torch {about['torch']}"


def draw(cells: Sequence[Cell], file: Path) -> None:
    """The ratios as bars, with their range."""
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
