"""A study's results as files: results.csv with a line per run, summary.md with means over seeds and comparisons."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from fedopt.runs.sheet import Sheet
from fedopt.runs.table import Value
from fedopt.storage.files import replace_file, storing
from simulations.benchmarks.engine import machine
from simulations.comparison import columns, compared_accuracy, not_finished, paired, sheet
from simulations.report.page import page
from simulations.results import MEASURES, SEARCHED, Group, Results, Row, axis_title, last, mean, read_results


def write_results(out: Path) -> Results:
    """Reads the study's runs, writes results.csv, summary.md and report.html beside them, and returns the results."""
    results = read_results([out])
    with storing(out):
        replace_file(out / "results.csv", results_csv(results).encode())
        replace_file(out / "summary.md", summary_md(results).encode())
        replace_file(out / "report.html", page(results).encode())
    return results


def results_csv(results: Results) -> str:
    """A header and a row per run: grid keys, seed, results, last and mean of each measure, the run's directory."""
    stream = io.StringIO()
    shown = [name for name in MEASURES if results.have_numbers or not name.startswith("regression.")]
    measures = [f"{measure}.{kind}" for measure in shown for kind in ("last", "mean")]
    names = [
        *results.axes,
        *(f"{key}{SEARCHED}" for key in results.searched),
        *("seed", "status", "test_accuracy", "personal_accuracy", "best_accuracy", "rounds"),
        *("target_accuracy", "rounds_to_target", "seconds"),
        *("bytes_up", "bytes_down", *measures, "run"),
    ]
    writer = csv.DictWriter(stream, names, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in results.rows:
        writer.writerow({name: "" if value is None else value for name, value in entries(row).items()})
    return stream.getvalue()


def entries(row: Row) -> dict[str, Value]:
    """The run's row of results.csv; None for what it has not."""
    records, summary = row.run.records, row.run.summary
    found: dict[str, Value] = {
        **row.labels,
        **{f"{key}{SEARCHED}": value for key, value in row.searched.items()},
        "target_accuracy": row.run.experiment.run.target_accuracy,
        "seed": row.seed,
        "status": row.status,
        "rounds": records[-1].round if records else 0,
        "bytes_up": sum(record.bytes_up for record in records),
        "bytes_down": sum(record.bytes_down for record in records),
        "run": row.name,
    }
    if summary is not None:
        found |= {
            "test_accuracy": summary.final.test_accuracy,
            "personal_accuracy": summary.final.personal_accuracy,
            "best_accuracy": summary.best.test_accuracy,
            "rounds_to_target": summary.rounds_to_target,
            "seconds": summary.seconds,
        }
    for measure in MEASURES:
        series = row.series(measure)
        found |= {f"{measure}.last": last(series), f"{measure}.mean": mean(series)}
    return found


def summary_md(results: Results) -> str:
    """The study's tables as Markdown."""
    about = machine()
    where = f"{date.today()}, {about['processor']}, {about['cores']} cores, torch {about['torch']}"
    head = [f"# {results.title}", "", *([results.about.strip(), ""] if results.about.strip() else [])]
    return "\n".join([*head, *_groups(results), *_pairs(results), where, ""])


def _groups(results: Results) -> Iterator[str]:
    seeds = max(len(group.rows) for group in results.groups)
    yield f"Mean ± standard deviation over {seeds} seeds; the best of each comparison in bold."
    yield "Each run has a line in results.csv and a directory. Measures of drift are means over the rounds."
    if any(group.mark for group in results.groups):
        yield "A row marked (1 of 3 runs) is about the finished runs only, in all columns, and is never the best."
    yield ""
    yield _with_runs(results, sheet(results, columns(results))).markdown
    yield ""


def _with_runs(results: Results, table: Sheet) -> Sheet:
    """The table with one more column, the directories of each group's runs."""
    runs = [(directories(group) + not_finished(group), False) for group in results.groups]
    lines = [[*line, own] for line, own in zip(table.lines, runs, strict=True)]
    return Sheet([*table.titles, "runs"], [*table.is_figure, False], lines)


def _pairs(results: Results) -> Iterator[str]:
    pairs = list(paired(results))
    if pairs:
        yield f"## {axis_title(results.compare).capitalize()}, seed by seed"
        yield ""
        compared = compared_accuracy(results)
        points = ", in points" if compared.scale == 100 else ""
        yield f"Difference in {compared.title} on the same clients, weights and minibatches{points}."
        yield ""
        lines = [(pair.where or "all", pair.difference, pair.spread, pair.each, pair.in_favor) for pair in pairs]
        yield Sheet(
            ["where", "difference", "mean ± standard deviation", "seed by seed", "in favor"],
            [False, False, True, False, True],
            [[(text, False) for text in line] for line in lines],
        ).markdown
        yield ""


def directories(group: Group) -> str:
    """The directories of the group's runs: name-seed{0,1,2} for name-seed0, name-seed1, name-seed2."""
    names = [row.name for row in group.rows]
    endings = [f"seed{row.seed}" for row in group.rows]
    stems = {name.removesuffix(ending) for name, ending in zip(names, endings, strict=True)}
    if len(stems) == 1 and len(names) > 1:
        return f"{stems.pop()}seed{{{','.join(str(row.seed) for row in group.rows)}}}"
    return " ".join(names)
