"""Rows with named columns, as text, HTML, Markdown, LaTeX or a pandas table."""

from __future__ import annotations

import html
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedopt.errors import InvalidExperiment
from fedopt.runs.sheet import Sheet

Value = str | int | float | None


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of the same columns."""

    rows: Sequence[Mapping[str, Value]]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Value]]:
        return iter(self.rows)

    def __getitem__(self, number: int) -> Mapping[str, Value]:
        return self.rows[number]

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each row. InvalidExperiment if pandas is not installed."""
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise InvalidExperiment("to_pandas needs pandas: pip install 'fedopt[tables]'") from error
        return pandas.DataFrame(list(self.rows), columns=self.columns)

    def to_markdown(self) -> str:
        """The table in Markdown, numbers with four digits."""
        return self._sheet.markdown

    def to_latex(self) -> str:
        r"""The table as a LaTeX tabular, numbers with four digits; it needs \usepackage{booktabs}."""
        return self._sheet.latex

    @property
    def _sheet(self) -> Sheet:
        return Sheet(
            self.columns,
            [not any(isinstance(row.get(column), str) for row in self.rows) for column in self.columns],
            [[(_text(row.get(column)), False) for column in self.columns] for row in self.rows],
        )

    def without_empty_columns(self) -> Table:
        """The table without the columns that are None in every row."""
        known = {column for row in self.rows for column, value in row.items() if value is not None}
        return Table([{column: row[column] for column in row if column in known} for row in self.rows])

    def __repr__(self) -> str:
        return as_text(self.columns, [[_text(row.get(column)) for column in self.columns] for row in self.rows])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(_text(row.get(column)))}</td>' for column in self.columns)}</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def as_text(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The table with aligned columns."""
    widths = [max(len(entry) for entry in column) for column in zip(headers, *lines, strict=True)]
    return "\n".join(
        "  ".join(entry.ljust(width) for entry, width in zip(line, widths, strict=True)).rstrip()
        for line in (headers, *lines)
    )


def _text(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
