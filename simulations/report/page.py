"""A report: one HTML file about some runs that opens from disk and needs no network."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from fedopt.experiment.file import as_sections
from fedopt.runs.catalog import NOTATION, meaning
from simulations.axes import OF_THE_MACHINE, SEED
from simulations.comparison import Accuracy, columns, compared_accuracy, headers, labels, marked, not_finished, paired
from simulations.report.analyses import analyses
from simulations.report.assets import asset, embedded, filled
from simulations.report.curves import (
    CURVE_MEASURES,
    Curve,
    class_accuracies,
    client_accuracies,
    curve,
    layer_curves,
    layer_scales,
    megabytes,
    of_clients,
)
from simulations.report.partitions import partitions
from simulations.results import Group, Results, axis_title

DIGITS = 5
"""Significant digits of a number on the page."""


def page(results: Results) -> str:
    assert __package__ is not None
    analyzed, unread = analyses(results)
    values = {
        "title": html.escape(results.title),
        "about": html.escape(results.about.strip()),
        "when": str(date.today()),
        "versions": html.escape(_versions(results)),
        "style": asset(__package__, "page.css"),
        "charts": asset(__package__, "charts.js"),
        "script": asset(__package__, "page.js"),
        "warnings": _warnings([*results.warnings, *unread]),
        "table": table(results),
        "pairs": pairs(results),
        "analyses": analyzed,
        "compared": html.escape(compared_accuracy(results).title),
        "unit": ", in points" if compared_accuracy(results).scale == 100 else "",
        "common": _common(results),
        "notation": html.escape(NOTATION),
        "data": embedded(page_data(results)),
    }
    return filled(asset(__package__, "page.html"), values)


def page_data(results: Results) -> dict[str, Any]:
    """The data that the page's script draws."""
    groups = results.groups
    in_use = of_clients(groups)
    return {
        "personal": results.are_personal,
        "numbers": results.have_numbers,
        "final": compared_accuracy(results).title.capitalize(),
        "axes": [{"name": axis, "title": axis_title(axis), "labels": labels} for axis, labels in results.axes.items()],
        "compare": results.compare,
        "groups": [
            _group(group, len(groups) == 1, in_use if results.are_personal else None, compared_accuracy(results))
            for group in groups
        ],
        "meanings": {measure: meaning(measure).replace("`", "") for measure in CURVE_MEASURES},
        "partitions": [
            {"title": title, "classes": labels.classes, "counts": labels.counts, "clients": labels.clients}
            for title, labels in partitions(results).items()
        ],
        "classes": next((row.run.partition.classes for row in results.rows if row.run.partition), []),
    }


def _group(group: Group, alone: bool, in_use: Callable[[Group], Curve] | None, compared: Accuracy) -> dict[str, Any]:
    final = group.spread(compared.of)
    curves = {measure: found for measure in CURVE_MEASURES if not (found := curve(group, measure)).empty}
    if in_use is not None and not (found := in_use(group)).empty:
        curves["personal_accuracy"] = found
    return {
        "title": group.title if not alone or len(group.labels) else "this run",
        "labels": list(group.labels.values()),
        "mark": group.mark,
        "final": [_short(final.mean), _known(final.deviation)] if final else None,
        "megabytes": {round_: _short(sent) for round_, sent in megabytes(group).items()},
        "curves": {
            measure: [
                found.rounds,
                [*map(_short, found.mean)],
                [*map(_known, found.deviation)],
                int(found.needs_markers),
            ]
            for measure, found in curves.items()
        },
        "layers": {
            kind: {name: [found.rounds, [*map(_short, found.mean)]] for name, found in by_layer(group).items()}
            for kind, by_layer in {"drift": layer_curves, "scale": layer_scales}.items()
        },
        "clients": [*map(_short, client_accuracies(group))],
        "classes": [*map(_known, class_accuracies(group))],
    }


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _known(value: float | None) -> float | None:
    return None if value is None else _short(value)


def _versions(results: Results) -> str:
    summaries = [row.run.summary for row in results.rows if row.run.summary is not None]
    if not summaries:
        return ""
    first = summaries[0]
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    engines = ", ".join(sorted({summary.engine for summary in summaries}))
    return f"{versions}; engine {engines}, on {', '.join(sorted({summary.device for summary in summaries}))}"


def _warnings(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f'<aside class="warnings" role="note"><ul>{items}</ul></aside>'


def table(results: Results) -> str:
    """A row for each group; the best of each comparison in bold."""
    figures = columns(results)
    figures_of = marked(results, figures)
    axes = headers(results) or ["run"]
    lines = []
    for group in results.groups:
        names_of = labels(results, group) or [group.rows[0].name]
        names = html.escape(", ".join(row.name for row in group.rows) + not_finished(group))
        runs = f"<details><summary>{len(group.rows)}</summary>{names}</details>"
        cells = [_cell(html.escape(label)) for label in names_of]
        for text, is_best in figures_of(group):
            cells.append(_cell(f"<strong>{html.escape(text)}</strong>" if is_best else html.escape(text), "n"))
        lines.append([*cells, _cell(runs, "runs")])
    return _as_table([*axes, *(f"{column.title}>" for column in figures), "runs"], lines)


def pairs(results: Results) -> str:
    """A row for each comparison seed by seed; "" if there is none."""
    lines = [
        [_cell(html.escape(pair.where or "all")), _cell(html.escape(pair.difference))]
        + [_cell(figure, "n") for figure in (pair.spread, pair.each, pair.in_favor)]
        for pair in paired(results)
    ]
    headers = ["where", "difference", "mean ± deviation>", "seed by seed>", "in favor>"]
    return _as_table(headers, lines) if lines else ""


def _cell(content: str, kind: str = "") -> str:
    return f'<td class="{kind}">{content}</td>' if kind else f"<td>{content}</td>"


def _as_table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """An HTML table. A header that ends in > is that of a column of numbers."""
    head = "".join(
        f'<th class="n">{html.escape(title[:-1])}</th>' if title.endswith(">") else f"<th>{html.escape(title)}</th>"
        for title in headers
    )
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _common(results: Results) -> str:
    """The settings that all runs share, section by section."""
    experiments = [as_sections(row.run.experiment) for row in results.rows]
    blocks = []
    for section in experiments[0]:
        keys = [
            key
            for key, value in experiments[0][section].items()
            if f"{section}.{key}" not in {SEED, *OF_THE_MACHINE}
            and all(other[section].get(key) == value for other in experiments)
        ]
        entries = "".join(
            f"<div><dt>{key}</dt><dd>{html.escape(str(experiments[0][section][key]))}</dd></div>" for key in keys
        )
        blocks.append(f"<section><h3>{section}</h3><dl>{entries}</dl></section>")
    return "".join(blocks)
