"""`python -m tests.docs.family DIR` prints the table of docs/results.md from the directory of `fedopt study family`."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from simulations.comparison import OF_CLIENTS, percent
from simulations.results import Results, Row, Spread, mean, read_results
from tests.docs.proofs import proofs

AXIS = "algorithm.name"

HEADERS = (
    *("algorithm", "local, server rate", "final", "best", "clients' models", "rounds to 95%", "drift ratio"),
    *("MB sent", "seconds", "lines", "proof"),
)


def code_lines(kind: type[Algorithm]) -> int:
    """Lines of the algorithm's file that hold code: no blank lines, comments or docstrings."""
    text = inspect.getsource(sys.modules[kind.__module__])
    held: set[int] = set()
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.expr, ast.stmt, ast.arg, ast.keyword, ast.alias)):
            last = node.lineno if hasattr(node, "body") else node.end_lineno or node.lineno
            (documented if _is_docstring(node) else held).update(range(node.lineno, last + 1))
    return len([line for line in held - documented if text.splitlines()[line - 1].strip()])


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def rows(results: Results) -> Iterator[Sequence[str]]:
    """A row for each algorithm, by final accuracy of what its clients use."""
    ranked = sorted(results.groups, key=lambda group: -_mean(group.spread(_used)))
    for group in ranked:
        name = group.labels[AXIS]
        kind = ALGORITHMS.resolve(name)
        assert issubclass(kind, Algorithm)
        (proof, *_), _ = proofs(name, kind)
        yield (
            f"{name}{group.mark}",
            ", ".join(group.searched.values()),
            percent(group.spread(lambda row: row.accuracy)),
            percent(group.spread(lambda row: row.best_accuracy)),
            percent(group.spread(OF_CLIENTS.of)) if group.rows[0].is_personal else "",
            ", ".join(_rounds(row) for row in group.finished),
            _number(group.spread(lambda row: mean(row.series("drift.ratio"))), 2),
            _number(group.spread(_megabytes), 0),
            _number(group.spread(lambda row: row.seconds), 0),
            str(code_lines(kind)),
            f"`{Path(proof).stem}`",
        )


def _used(row: Row) -> float | None:
    return OF_CLIENTS.of(row) if row.is_personal else row.accuracy


def _rounds(row: Row) -> str:
    reached = None if row.run.summary is None else row.run.summary.rounds_to_target
    return "-" if reached is None else str(reached)


def _megabytes(row: Row) -> float:
    return sum(record.bytes_up + record.bytes_down for record in row.run.records) / 1e6


def _mean(spread: Spread | None) -> float:
    return -1.0 if spread is None else spread.mean


def _number(spread: Spread | None, digits: int) -> str:
    return "-" if spread is None else f"{spread.mean:.{digits}f}"


def table(folder: Path) -> str:
    """The table as Markdown."""
    lines = [HEADERS, ["---"] * len(HEADERS), *rows(read_results([folder]))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
