"""Tables in a terminal: where there is no room for all columns, some are left out whole, and named."""

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
    tells_apart: bool = False
    """Whether it says which row is which, or what the table is for: such a column stays, whatever the room."""
    is_figure: bool = True
    """Figures stand to the right, and are not broken into lines."""

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (self.title, *self.cells))


def fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns for which a line of `width` characters has room, and the titles of those left out, from the end."""
    shown, left_out = list(columns), list[str]()
    for column in reversed(columns):
        if sum(one.width + GAP for one in shown) - GAP <= width:
            break
        if not column.tells_apart:
            shown.remove(column)
            left_out.insert(0, column.title)
    return shown, left_out


def show(console: Console, columns: Sequence[Column], bold: Sequence[bool], elsewhere: str = "") -> None:
    """Prints the table, bold where rows are; `elsewhere` is where the columns are that do not fit."""
    shown, left_out = fit(columns, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown:
        table.add_column(column.title, justify="right" if column.is_figure else "left", no_wrap=column.is_figure)
    for row, is_bold in zip(zip(*(column.cells for column in shown), strict=True), bold, strict=True):
        table.add_row(*row, style="bold" if is_bold else "")
    console.print(table)
    if left_out:
        what = f"no room for: {', '.join(left_out)}{f'; see {elsewhere}' if elsewhere else ''}"
        console.print(what, highlight=False, soft_wrap=True, markup=False)
