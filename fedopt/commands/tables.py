"""Tables in a terminal. Where a table is too wide, whole columns are left out, and a line below names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

GAP = 2
"""Characters between two columns."""


@dataclass(frozen=True)
class Column:
    title: str
    cells: Sequence[str]
    is_required: bool = False
    """Whether it identifies the row or is the table's main result. It is never left out."""
    is_figure: bool = True
    """Figures are aligned right and not wrapped."""

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (self.title, *self.cells))


def fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit in a line of `width` characters, and the titles of the others; the last go first."""
    fitting, left_out = list(columns), list[str]()
    for column in reversed(columns):
        if sum(one.width + GAP for one in fitting) - GAP <= width:
            break
        if not column.is_required:
            fitting.remove(column)
            left_out.insert(0, column.title)
    return fitting, left_out


def show(console: Console, columns: Sequence[Column], bold: Sequence[bool], elsewhere: str = "") -> None:
    """Prints the table; `bold` says which rows are bold, `elsewhere` names the file that has all columns."""
    fitting, left_out = fit(columns, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in fitting:
        table.add_column(column.title, justify="right" if column.is_figure else "left", no_wrap=column.is_figure)
    for row, is_bold in zip(zip(*(column.cells for column in fitting), strict=True), bold, strict=True):
        table.add_row(*row, style="bold" if is_bold else "")
    console.print(table)
    if left_out:
        what = f"columns that do not fit: {', '.join(left_out)}{f'; see {elsewhere}' if elsewhere else ''}"
        console.print(what, highlight=False, soft_wrap=True, markup=False)
