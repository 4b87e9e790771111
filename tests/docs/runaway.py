"""`python -m tests.docs.runaway DIR` prints the table of docs/results.md from the directory of
`fedopt study runaway`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulations.results import Row, read_results

BLOCK = 50
"""Rounds of a mean."""


def rows(folder: Path) -> Iterator[Sequence[str]]:
    results = read_results([folder])
    last = max(record.round for row in results.rows for record in row.run.records)
    starts = range(0, last, BLOCK)
    yield (
        "method",
        "seed",
        *(f"rounds {start + 1}-{start + BLOCK}" for start in starts),
        "last",
        "longest update",
        "of client, in round",
    )
    for row in results.rows:
        yield (
            row.labels["method"],
            str(row.run.experiment.run.seed),
            *(_mean(row, start, start + BLOCK) for start in starts),
            _last(row),
            *_longest(row),
        )


def _mean(row: Row, after: int, until: int) -> str:
    values = [value for round_, value in row.series("test_accuracy") if after < round_ <= until]
    reached = row.run.records[-1].round
    note = f" (to {reached})" if values and reached < until else ""
    return f"{100 * statistics.fmean(values):.1f}{note}" if values else "-"


def _last(row: Row) -> str:
    if not row.run.finished:
        return "stopped" if row.run.failure is None else f"diverged in {row.run.records[-1].round + 1}"
    return f"{100 * row.series('test_accuracy')[-1][1]:.1f}"


def _longest(row: Row) -> tuple[str, str]:
    drifts = [(record.drift, record.round) for record in row.run.records if record.drift is not None]
    drift, round_ = max(drifts, key=lambda one: one[0].longest or 0.0)
    return f"{drift.longest:.1f}", f"{drift.longest_client}, {round_}"


if __name__ == "__main__":
    headers, *others = rows(Path(sys.argv[1]))
    for cells in (headers, ["---"] * len(headers), *others):
        print("| " + " | ".join(cells) + " |")
