"""`python -m tests.docs.optimizers DIR` prints the table of docs/results.md from the directory of
`fedopt study optimizers`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulations.comparison import percent
from simulations.results import Group, Results, Spread, mean, read_results

ALGORITHMS = "fedavg", "scaffold"

HEADERS = (
    "optimizer",
    *(f"{name}: {what}" for name in ("FedAvg", "SCAFFOLD") for what in ("lr", "final", "rounds to 95%", "drift ratio")),
    "SCAFFOLD - FedAvg",
    "seconds",
)


def rows(results: Results) -> Iterator[Sequence[str]]:
    """A row for each optimizer, in the order of the study."""
    by_place = {(group.labels["optimizer"], group.labels["algorithm.name"]): group for group in results.groups}
    for optimizer in results.axes["optimizer"]:
        if not all((optimizer, name) in by_place for name in ALGORITHMS):
            continue  # the study has not come to it yet
        pair = [by_place[optimizer, name] for name in ALGORITHMS]
        yield (
            optimizer,
            *(cell for group in pair for cell in _cells(group)),
            percent(_difference(*pair)),
            " and ".join(_number(group.spread(lambda row: row.seconds), 0) for group in pair),
        )


def _cells(group: Group) -> Iterator[str]:
    yield ", ".join(group.searched.values())
    yield f"{percent(group.spread(lambda row: row.accuracy))}{group.mark}"
    yield ", ".join(
        "-"
        if row.run.summary is None or row.run.summary.rounds_to_target is None
        else str(row.run.summary.rounds_to_target)
        for row in group.finished
    )
    yield _number(group.spread(lambda row: mean(row.series("drift.ratio"))), 1)


def _difference(first: Group, second: Group) -> Spread | None:
    """Of the final accuracies, seed by seed."""
    ends = [{row.run.experiment.run.seed: row.accuracy for row in group.finished} for group in (first, second)]
    found = [b - a for seed, a in ends[0].items() if a is not None and (b := ends[1].get(seed)) is not None]
    return Spread.of(found) if found else None


def _number(spread: Spread | None, digits: int) -> str:
    return "-" if spread is None else f"{spread.mean:.{digits}f}"


if __name__ == "__main__":
    found = read_results([Path(sys.argv[1])])
    for cells in (HEADERS, ["---"] * len(HEADERS), *rows(found)):
        print("| " + " | ".join(cells) + " |")
