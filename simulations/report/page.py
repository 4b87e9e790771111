"""The page: all that is known of some runs as one HTML file that opens from disk and asks the network for nothing."""

from __future__ import annotations

import html
import json
import re
from datetime import date
from importlib import resources
from typing import Any

from fedopt.drift.catalogue import NOTATION, meaning
from fedopt.experiment_file import as_sections
from simulations.report.curves import SHOWN, class_accuracies, client_accuracies, curve, layer_curves, megabytes
from simulations.report.partitions import partitions
from simulations.results import NO_AXIS, Group, Results, axis_title, mean
from simulations.study.tables import (
    SHOWN_MEASURES,
    failed,
    number,
    paired,
    percent,
    rounds_to_target,
    winners,
)

DIGITS = 5
"""Significant digits of a number on the page."""


def page(results: Results) -> str:
    assets = resources.files(__package__)
    filled = {
        "title": html.escape(results.title),
        "about": html.escape(results.about.strip()),
        "when": str(date.today()),
        "versions": html.escape(_versions(results)),
        "style": (assets / "page.css").read_text(encoding="utf-8"),
        "charts": (assets / "charts.js").read_text(encoding="utf-8"),
        "script": (assets / "page.js").read_text(encoding="utf-8"),
        "complaints": _complaints(results),
        "table": _table(results),
        "pairs": _pairs(results),
        "common": _common(results),
        "notation": html.escape(NOTATION),
        "data": json.dumps(page_data(results), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    text = (assets / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], text)


def page_data(results: Results) -> dict[str, Any]:
    """What the page's script draws from."""
    groups = results.groups
    return {
        "axes": [{"name": axis, "title": axis_title(axis), "labels": labels} for axis, labels in results.axes.items()],
        "compare": results.compare,
        "groups": [_group(group, alone=len(groups) == 1) for group in groups],
        "meanings": {measure: meaning(measure) for measure in SHOWN},
        "partitions": [
            {"title": title, "classes": labels.classes, "counts": labels.counts}
            for title, labels in partitions(results).items()
        ],
        "classes": next((row.run.partition.classes for row in results.rows if row.run.partition), []),
    }


def _group(group: Group, alone: bool) -> dict[str, Any]:
    final = group.spread(lambda row: row.accuracy)
    curves = {measure: found for measure in SHOWN if not (found := curve(group, measure)).empty}
    layers = layer_curves(group)
    return {
        "title": group.title if not alone or len(group.labels) else "this run",
        "labels": list(group.labels.values()),
        "final": [_short(final.mean), _short(final.deviation)] if final else None,
        "megabytes": {round_: _short(sent) for round_, sent in megabytes(group).items()},
        "curves": {
            measure: [found.rounds, [*map(_short, found.mean)], [*map(_short, found.deviation)]]
            for measure, found in curves.items()
        },
        "layers": {name: [found.rounds, [*map(_short, found.mean)]] for name, found in layers.items()},
        "clients": [*map(_short, client_accuracies(group))],
        "classes": [None if value is None else _short(value) for value in class_accuracies(group)],
    }


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _versions(results: Results) -> str:
    summaries = [row.run.summary for row in results.rows if row.run.summary is not None]
    if not summaries:
        return ""
    first = summaries[0]
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    engines = ", ".join(sorted({summary.engine for summary in summaries}))
    return f"{versions}; engine {engines}, on {', '.join(sorted({summary.device for summary in summaries}))}"


def _complaints(results: Results) -> str:
    if not results.complaints:
        return ""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in results.complaints)
    return f'<aside class="complaints" role="note"><ul>{items}</ul></aside>'


def _table(results: Results) -> str:
    target = next((row.run.experiment.run.target_accuracy for row in results.rows), None)
    heads = [axis_title(axis) for axis in results.axes] or ["run"]
    columns = ["final accuracy, %", "best, %", *([f"rounds to {target:.0%}"] if target else [])]
    head = "".join(f"<th>{html.escape(title)}</th>" for title in heads)
    head += "".join(f'<th class="n">{title}</th>' for title in [*columns, *SHOWN_MEASURES.values(), "s a run"])
    best, rows = winners(results), []
    for group in results.groups:
        final = percent(group.spread(lambda row: row.accuracy))
        cells = [
            f"<strong>{final}</strong>" if tuple(group.labels.items()) in best else final,
            percent(group.spread(lambda row: row.best_accuracy)),
            *([rounds_to_target(group)] if target else []),
            *(number(group.spread(lambda row, m=measure: mean(row.series(m)))) for measure in SHOWN_MEASURES),  # type: ignore[misc]
            number(group.spread(lambda row: row.seconds), digits=1),
        ]
        labels = list(group.labels.values()) or [group.rows[0].name]
        names = html.escape(", ".join(row.name for row in group.rows) + failed(group))
        line = "".join(f"<td>{html.escape(label)}</td>" for label in labels)
        line += "".join(f'<td class="n">{cell}</td>' for cell in cells)
        runs = f"<details><summary>{len(group.rows)}</summary>{names}</details>"
        rows.append(f"<tr>{line}<td class='runs'>{runs}</td></tr>")
    return f"<table><thead><tr>{head}<th>runs</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _pairs(results: Results) -> str:
    lines = []
    for pair in paired(results):
        spread, each, favour = pair.told()
        cells = [pair.where, f"{pair.other} − {pair.first}"]
        numbers = [spread, each, favour]
        line = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr>{line}{''.join(f'<td class=n>{number}</td>' for number in numbers)}</tr>")
    if not lines:
        return ""
    heads = ["where", "difference"]
    head = "".join(f"<th>{title}</th>" for title in heads)
    head += "".join(f"<th class=n>{title}</th>" for title in ("mean ± deviation", "seed by seed", "in favour"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _common(results: Results) -> str:
    """What all runs have in common, section by section."""
    experiments = [as_sections(row.run.experiment) for row in results.rows]
    blocks = []
    for section in experiments[0]:
        keys = [
            key
            for key, value in experiments[0][section].items()
            if f"{section}.{key}" not in NO_AXIS and all(other[section].get(key) == value for other in experiments)
        ]
        told = "".join(
            f"<div><dt>{key}</dt><dd>{html.escape(str(experiments[0][section][key]))}</dd></div>" for key in keys
        )
        blocks.append(f"<section><h3>{section}</h3><dl>{told}</dl></section>")
    return "".join(blocks)
