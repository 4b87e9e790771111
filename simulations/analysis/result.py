"""What a demonstration or an analysis found: sentences, a table of numbers, a figure, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedopt.errors import InvalidExperiment
from fedopt.storage.files import replace_file
from simulations.report.figures import draw, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = float | int | str | None


@dataclass(frozen=True)
class Result:
    """The result of a command of `fedopt demo` or `fedopt analyze`."""

    name: str
    title: str
    findings: Sequence[str]
    """What the numbers show, a sentence each."""
    settings: Mapping[str, Value]
    """What it was run with."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    """The table, a row for each curve and step."""
    figure: Callable[[], Figure]
    numbers: Mapping[str, object] = field(default_factory=dict)
    """Results that are no table, for the JSON file."""
    compared: Mapping[str, float | None] = field(default_factory=dict)
    """Numbers by title that a report compares across runs."""

    def write(self, folder: Path) -> list[Path]:
        """Writes NAME.json, NAME.csv, NAME.svg and NAME.pdf, and returns the files. InvalidExperiment if it cannot."""
        drawn = draw(self.figure)
        assert drawn is not None
        contents = {"json": self._json(), "csv": self._csv()}
        for ending in ("svg", "pdf"):
            stream = io.BytesIO()
            save(drawn, stream, ending)
            contents[ending] = stream.getvalue()
            drawn.set_layout_engine("none")  # the places of the first file: to find them takes a third of a second
        files: list[Path] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for ending, content in contents.items():
                files.append(folder / f"{self.name}.{ending}")
                replace_file(files[-1], content)
        except OSError as error:
            raise InvalidExperiment(f"--out {folder} cannot be written: {error.strerror}") from error
        return files

    def summary(self) -> dict[str, object]:
        return {
            "name": self.name,
            "title": self.title,
            "settings": dict(self.settings),
            "findings": list(self.findings),
            **({"numbers": dict(self.numbers)} if self.numbers else {}),
            **({"compared": dict(self.compared)} if self.compared else {}),
        }

    def _json(self) -> bytes:
        return json.dumps(self.summary(), indent=2, ensure_ascii=False).encode() + b"\n"

    def _csv(self) -> bytes:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return stream.getvalue().encode()
