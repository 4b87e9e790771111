"""Pieces of Markdown: tables, code, formulas."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

BY_HAND = "<!-- Written by `make docs` from the code: edit the docstrings there. -->"

Row = Sequence[str]


def wrapped(text: str) -> list[str]:
    """Lines of a paragraph. None begins with a sign that would make it a list or a heading, as a minus would."""
    lines: list[str] = []
    for line in textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False):
        while lines and (sign := re.match(r"([-+*>]|#+|\d+[.)]) +", line)):
            lines[-1] += f" {sign[1]}"
            line = line[sign.end() :]
        lines.append(line)
    return lines


def table(head: Row, rows: Iterable[Row]) -> list[str]:
    """A Markdown table."""
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def listed(words: Iterable[str], last: str = "and") -> str:
    """Words in a sentence."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def plain(text: str) -> str:
    """Text for a cell, where a bar would begin another one."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def formula(text: str) -> str:
    """A docstring with its mathematics: sum w_i |d_i|^2 becomes Σ w_i |d_i|² with lowered indices."""
    text = re.sub(r"\bsum(_[a-z]+)? (?!of\b)(?=[\w|\\])", r"Σ\1 ", plain(text))
    text = text.replace("zeta", "ζ").replace("^2", "²")
    return re.sub(r"\b([A-Za-zΣ])_([a-z]{1,2}|central)(?![a-z_])", r"\1<sub>\2</sub>", text)


def marked_up(text: str) -> str:
    """`formula`, but for what stands in backticks or is bold already."""
    parts = re.split(r"(`[^`]*`|\*\*[^*]*\*\*)", text)
    return "".join(part if place % 2 else formula(part) for place, part in enumerate(parts))


def page(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"# {title}", "", BY_HAND, "", *lines]) + "\n"
