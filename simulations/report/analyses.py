"""What `fedopt analyze` has found about the runs, for the page: a table over seeds, and the figures side by side."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from simulations.analysis import FOLDER
from simulations.report.figures import draw, save
from simulations.report.landscapes import landscapes
from simulations.results import Group, Results, Row, Spread

MOST_FIGURES = 24
"""The most figures of one analysis, so that a page stays a file that browsers open quickly."""


class Found(BaseModel):
    """The JSON file of an analysis, which `simulations.analysis.result.Result` writes."""

    model_config = ConfigDict(extra="ignore")

    name: str
    title: str
    findings: list[str]
    compared: dict[str, float | None] = {}


@dataclass(frozen=True)
class Analysis:
    """One analysis of one run."""

    found: Found
    figure: bytes | None
    """SVG."""


def analyses(results: Results) -> tuple[str, list[str]]:
    """The page's section, "" if no run was analyzed, and a sentence for each file that cannot be read."""
    warnings = list[str]()
    by_run = {row.run.path: read(row.run.path, warnings) for row in results.rows}
    names = list(dict.fromkeys(name for found in by_run.values() for name in found))
    blocks = "".join(
        _block(results, {path: found[name] for path, found in by_run.items() if name in found}) for name in names
    )
    return (f'<section id="analyses"><h2>Analyses</h2>{blocks}</section>' if blocks else ""), warnings


def read(run: Path, warnings: list[str]) -> dict[str, Analysis]:
    """The analyses in a run's directory by their name."""
    found = dict[str, Analysis]()
    for file in sorted((run / FOLDER).glob("*.json")):
        try:
            one = Found.model_validate(json.loads(file.read_bytes()))
        except (OSError, ValueError, ValidationError):
            warnings.append(f"{file} cannot be read as the result of an analysis and is left out")
            continue
        figure = file.with_suffix(".svg")
        found[one.name] = Analysis(one, figure.read_bytes() if figure.is_file() else None)
    return found


def _block(results: Results, of_run: Mapping[Path, Analysis]) -> str:
    """One analysis of all runs that have it."""
    with_it = [(group, rows) for group in results.groups if (rows := [r for r in group.rows if r.run.path in of_run])]
    name = next(iter(of_run.values())).found.name
    drawn = [(group, row, of_run[row.run.path]) for group, rows in with_it for row in rows[:1]]
    alone = len(results.groups) == 1
    figures = "".join(_figure(group, row, one, alone) for group, row, one in drawn[:MOST_FIGURES])
    shared = _together(results) if name == "landscape-plane" else ""
    left = f'<p class="note">{len(drawn) - MOST_FIGURES} more figures are in the runs\' directories.</p>'
    return (
        f"<h3>{html.escape(name)}</h3>{_table(with_it, of_run)}{shared}"
        f'<div class="analyses">{figures}</div>{left if len(drawn) > MOST_FIGURES else ""}'
    )


def _table(with_it: Sequence[tuple[Group, list[Row]]], of_run: Mapping[Path, Analysis]) -> str:
    """A row for each group: the numbers that are compared, as mean and deviation over its analyzed runs."""
    columns = list(dict.fromkeys(column for one in of_run.values() for column in one.found.compared))
    if not columns:
        return ""
    head = "".join(f'<th class="n">{html.escape(column)}</th>' for column in columns)
    lines = [
        f"<tr><td>{html.escape(group.title)}</td>"
        + "".join(f'<td class="n">{cell}</td>' for cell in cells([of_run[row.run.path] for row in rows], columns))
        + f'<td class="n">{len(rows)}</td></tr>'
        for group, rows in with_it
    ]
    return (
        f'<div class="scroll"><table><thead><tr><th>runs</th>{head}<th class="n">analyzed</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def cells(found: Sequence[Analysis], columns: Sequence[str]) -> Iterator[str]:
    """Mean ± standard deviation of each column."""
    for column in columns:
        values = [value for one in found if (value := one.found.compared.get(column)) is not None]
        yield as_text(Spread.of(values)) if values else "-"


def as_text(spread: Spread) -> str:
    """To four digits, and two of the deviation."""
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.2g}"
    return f"{spread.mean:.4g}{deviation}"


def _together(results: Results) -> str:
    """All planes on one scale; "" for one run."""
    figure = draw(partial(landscapes, results))
    if figure is None:
        return ""
    stream = io.BytesIO()
    save(figure, stream, "svg")
    return (
        "<figure><figcaption><strong>The training loss around the final models, on one scale</strong></figcaption>"
        f"{_picture('Contours of the training loss around the final models', stream.getvalue())}</figure>"
    )


def _picture(alternative: str, svg: bytes) -> str:
    source = base64.b64encode(svg).decode()
    return (
        f'<div class="picture"><img alt="{html.escape(alternative, quote=True)}" '
        f'src="data:image/svg+xml;base64,{source}"></div>'
    )


def _figure(group: Group, row: Row, one: Analysis, alone: bool) -> str:
    if one.figure is None:
        return ""
    title = one.found.title if alone else f"{group.title}, seed {row.seed}"
    findings = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in one.found.findings)
    return (
        f"<figure><figcaption><strong>{html.escape(title)}</strong></figcaption>"
        f"{_picture(one.found.title, one.figure)}"
        f"<details><summary>numbers</summary><ul>{findings}</ul></details></figure>"
    )
