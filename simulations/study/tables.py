"""A study's answer as files: results.csv, a line a run, and summary.md, means over seeds and paired comparisons."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from simulations.bench import machine
from simulations.results import MEASURES, Group, Results, Row, Spread, axis_title, last, mean, told

SHOWN_MEASURES = {"drift.ratio": "drift ratio", "drift.cosine": "cosine", "gradients.zeta2": "ζ²"}
"""Measures with a column in summary.md: means over the rounds."""


def results_csv(results: Results) -> str:
    """One row a run, a header above: grid keys, seed, outcomes, last and mean of each measure, the run's directory."""
    stream = io.StringIO()
    measures = [f"{measure}.{kind}" for measure in MEASURES for kind in ("last", "mean")]
    names = [
        *results.axes,
        *("seed", "status", "test_accuracy", "best_accuracy", "rounds", "rounds_to_target", "seconds"),
        *("bytes_up", "bytes_down", *measures, "run"),
    ]
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    for row in results.rows:
        writer.writerow({name: "" if value is None else value for name, value in _entries(row).items()})
    return stream.getvalue()


def _entries(row: Row) -> dict[str, object]:
    records, summary = row.run.records, row.run.summary
    entries: dict[str, object] = {
        **row.labels,
        "seed": row.seed,
        "status": row.status,
        "rounds": records[-1].round if records else 0,
        "bytes_up": sum(record.bytes_up for record in records),
        "bytes_down": sum(record.bytes_down for record in records),
        "run": row.name,
    }
    if summary is not None:
        entries |= {
            "test_accuracy": summary.final.test_accuracy,
            "best_accuracy": summary.best.test_accuracy,
            "rounds_to_target": summary.rounds_to_target,
            "seconds": summary.seconds,
        }
    for measure in MEASURES:
        series = row.series(measure)
        entries |= {f"{measure}.last": last(series), f"{measure}.mean": mean(series)}
    return entries


def summary_md(results: Results) -> str:
    """The tables of a study as Markdown."""
    about = machine()
    where = f"{date.today()}, {about['processor']}, {about['cores']} cores, torch {about['torch']}"
    head = [f"# {results.title}", "", *_paragraph(results.about)]
    return "\n".join([*head, *_main_table(results), *_paired(results), where, ""])


def _paragraph(text: str) -> list[str]:
    return [text.strip(), ""] if text.strip() else []


def _main_table(results: Results) -> Iterator[str]:
    seeds = max(len(group.rows) for group in results.groups)
    yield f"Mean ± standard deviation over {seeds} seeds; the best of each comparison in bold."
    yield "Every run has its line in results.csv and its directory; measures of drift are means over the rounds."
    yield ""
    target = next((row.run.experiment.run.target_accuracy for row in results.rows), None)
    titles = [axis_title(axis) for axis in results.axes]
    columns = ["final accuracy, %", "best accuracy, %", *([f"rounds to {target:.0%}"] if target else [])]
    yield _line([*titles, *columns, *SHOWN_MEASURES.values(), "s a run", "runs"])
    yield _line(["---"] * len(titles) + ["---:"] * (len(columns) + len(SHOWN_MEASURES) + 1) + ["---"])
    best = winners(results)
    for group in results.groups:
        final = percent(group.spread(lambda row: row.accuracy))
        yield _line(
            [
                *group.labels.values(),
                f"**{final}**" if tuple(group.labels.items()) in best else final,
                percent(group.spread(lambda row: row.best_accuracy)),
                *([rounds_to_target(group)] if target else []),
                *(number(group.spread(lambda row, m=measure: mean(row.series(m)))) for measure in SHOWN_MEASURES),  # type: ignore[misc]
                number(group.spread(lambda row: row.seconds), digits=1),
                directories(group) + failed(group),
            ]
        )
    yield ""


def winners(results: Results) -> set[tuple[tuple[str, str], ...]]:
    """The groups with the highest mean accuracy among those that differ on the compared axis alone."""
    found = set()
    for _, groups in contexts(results):
        scored = [(spread.mean, group) for group in groups if (spread := group.spread(lambda row: row.accuracy))]
        if len(scored) > 1:
            found.add(tuple(max(scored, key=lambda pair: pair[0])[1].labels.items()))
    return found


def contexts(results: Results) -> list[tuple[dict[str, str], list[Group]]]:
    """Groups by all labels but that of the compared axis."""
    found: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in results.groups:
        rest = tuple((axis, label) for axis, label in group.labels.items() if axis != results.compare)
        found.setdefault(rest, []).append(group)
    return [(dict(rest), groups) for rest, groups in found.items()]


def _paired(results: Results) -> Iterator[str]:
    lines = list(paired(results))
    if lines:
        yield f"## {axis_title(results.compare).capitalize()}, seed by seed"
        yield ""
        yield "Difference in final accuracy on the same clients, weights and minibatches, in points."
        yield ""
        yield _line(["where", "difference", "mean ± standard deviation", "seed by seed", "in favour"])
        yield _line(["---", "---", "---:", "---", "---:"])
        yield from (_line([line.where, f"{line.other} - {line.first}", *line.told()]) for line in lines)
        yield ""


class Pair:
    """One comparison over the seeds that both have finished."""

    def __init__(self, where: Mapping[str, str], first: Group, other: Group, compare: str) -> None:
        self.where = ", ".join(told(axis, label) for axis, label in where.items()) or "all"
        self.first, self.other = first.labels[compare], other.labels[compare]
        before = {row.seed: row.accuracy for row in first.rows}
        self.gains = [
            100 * (row.accuracy - reference)
            for row in other.rows
            if row.accuracy is not None and (reference := before.get(row.seed)) is not None
        ]

    def told(self) -> list[str]:
        spread = Spread.of(self.gains)
        each = ", ".join(f"{gain:+.2f}" for gain in self.gains)
        favour = f"{sum(gain > 0 for gain in self.gains)} of {len(self.gains)}"
        return [f"{spread.mean:+.2f} ± {spread.deviation:.2f}", each, favour]


def paired(results: Results) -> Iterator[Pair]:
    """Every group against the first of its comparison, seed by seed."""
    for where, groups in contexts(results):
        first, *others = groups
        for other in others:
            pair = Pair(where, first, other, results.compare)
            if pair.gains:
                yield pair


def percent(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{100 * spread.mean:.2f}" + (f" ± {100 * spread.deviation:.2f}" if spread.count > 1 else "")


def number(spread: Spread | None, digits: int | None = None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.{digits}f}" if digits is not None else f"{spread.mean:.3g}"


def rounds_to_target(group: Group) -> str:
    """The rounds of each seed."""
    reached = [row.run.summary.rounds_to_target for row in group.rows if row.run.summary is not None]
    return ", ".join("never" if rounds is None else str(rounds) for rounds in reached) or "-"


def failed(group: Group) -> str:
    """How many of the group's runs did not end well."""
    lost = [row for row in group.rows if row.status != "finished"]
    return f" ({len(lost)} of {len(group.rows)} {lost[0].status})" if lost else ""


def directories(group: Group) -> str:
    """Where the group's runs are: name-seed{0,1,2} for name-seed0, name-seed1, name-seed2."""
    names = [row.name for row in group.rows]
    endings = [f"seed{row.seed}" for row in group.rows]
    stems = {name.removesuffix(ending) for name, ending in zip(names, endings, strict=True)}
    if len(stems) == 1 and len(names) > 1:
        return f"{stems.pop()}seed{{{','.join(str(row.seed) for row in group.rows)}}}"
    return " ".join(names)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
