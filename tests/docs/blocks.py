"""The fenced blocks of a Markdown page."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).parents[2]

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`]*)$")
TITLE = re.compile(r'title="(?P<title>[^"]+)"')
NOT_RUN = re.compile(r"^<!-- not run: (?P<reason>.+) -->$")
CHECKED = "<!-- checked -->"
LIKE = "<!-- checked but for numbers -->"


class Kind(Enum):
    """What is done with a block."""

    PYTHON = "python"
    SHELL = "sh"
    FILE = "file written"
    PARSED = "parsed"
    CHECKED = "output checked"
    LIKE = "output checked but for numbers"
    OUTPUT = "output shown"
    NOT_RUN = "not run"


WITHOUT_TITLE = {
    "python": Kind.PYTHON,
    "sh": Kind.SHELL,
    "toml": Kind.PARSED,
    "json": Kind.PARSED,
    "text": Kind.OUTPUT,
}


class PageError(Exception):
    """A block is not written by the convention, or failed."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    """The line of the opening fence, from 1; the text begins on the next."""
    language: str
    title: str
    text: str
    kind: Kind
    reason: str = ""
    """Why it is not run."""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read_page(page: Path) -> list[Block]:
    """The page's blocks from top to bottom; PageError if one is not written by the convention."""
    return list(_blocks(page, page.read_text(encoding="utf-8").splitlines()))


def _blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        start, closing = number, opening["indent"] + opening["fence"]
        number += 1
        while number < len(lines) and lines[number].rstrip() != closing:
            number += 1
        if number == len(lines):
            raise PageError(f"{page}:{start + 1}: this block is not closed")
        inside = textwrap.dedent("\n".join(lines[start + 1 : number])) + "\n"
        yield _block(page, start + 1, opening["info"].strip(), inside, _before(lines, start))
        number += 1


def _before(lines: list[str], start: int) -> str:
    """The line before a block, which may mark it."""
    return lines[start - 1].strip() if start else ""


def _block(page: Path, line: int, info: str, text: str, before: str) -> Block:
    language, _, rest = info.partition(" ")
    titled = TITLE.search(rest)
    title = titled["title"] if titled else ""
    marked = NOT_RUN.match(before)
    reason = marked["reason"] if marked else ""
    if reason:
        kind = Kind.NOT_RUN
    elif title:
        kind = Kind.FILE
    elif language in WITHOUT_TITLE:
        kind = {CHECKED: Kind.CHECKED, LIKE: Kind.LIKE}.get(before, WITHOUT_TITLE[language])
    else:
        known = ", ".join(WITHOUT_TITLE)
        raise PageError(f"{page}:{line}: the language {language!r} is none of {known}, and the block has no title")
    if before in (CHECKED, LIKE) and language != "text":
        raise PageError(f"{page}:{line}: only a text block can be checked, not {language}")
    return Block(page, line, language, title, text, kind, reason)
