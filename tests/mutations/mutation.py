"""A mutation: one line of the code under test, and what a plausible mistake would make of it. The TOML files beside
this one hold them, by subject."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

LISTS = Path(__file__).parent


class Mutation(BaseModel):
    """One entry of a list."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    """How `--only` and the report refer to it: SUBJECT/what-is-wrong."""
    file: str
    """The file under test, relative to the checkout."""
    old: str
    """Part of one line; it occurs exactly once in the file."""
    new: str
    """What takes its place."""
    breaks: str
    """What is wrong then, in half a line."""
    first: tuple[str, ...] = Field((), strict=False)
    """Test files or node ids that are likely to notice; they run before the rest of test-quick."""
    explained: str = ""
    """For a mutation that changes no result: why no test can notice."""

    @field_validator("old", "new")
    @classmethod
    def _is_one_line(cls, text: str) -> str:
        if "\n" in text:
            raise ValueError("a mutation changes one line")
        return text

    def applied(self, root: Path) -> str:
        """The mutated text of the file; ValueError, with a sentence, if `old` is not exactly once in it."""
        path = root / self.file
        if not path.is_file():
            raise ValueError(f"{self.name}: there is no file {self.file}; the code has moved, so name its new file")
        text = path.read_text()
        found = text.count(self.old)
        if found != 1:
            raise ValueError(
                f"{self.name}: {self.old!r} occurs {found} times in {self.file} and must occur once; "
                "the code has changed, so choose another text"
            )
        return text.replace(self.old, self.new)


class MutationList(BaseModel):
    """One file: mutations of one subject."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    first: dict[str, Annotated[tuple[str, ...], Field(strict=False)]] = Field(default_factory=dict)
    """For a file under test, the `first` of its mutations that have none of their own."""
    mutations: tuple[Mutation, ...] = Field(strict=False)


def read_mutations(folder: Path = LISTS) -> list[Mutation]:
    """All mutations, in the order of the files' names and then of their entries."""
    found: list[Mutation] = []
    for file in sorted(folder.glob("*.toml")):
        listed = MutationList.model_validate(tomllib.loads(file.read_text()))
        for mutation in listed.mutations:
            first = mutation.first or listed.first.get(mutation.file, ())
            found.append(mutation.model_copy(update={"name": f"{file.stem}/{mutation.name}", "first": first}))
    return found


def matching(mutations: Sequence[Mutation], only: str | None) -> list[Mutation]:
    """Those in whose name or file the regular expression is found; all without one."""
    return [m for m in mutations if only is None or re.search(only, m.name) or re.search(only, m.file)]


def moved(mutations: Sequence[Mutation], root: Path) -> list[str]:
    """A sentence for each mutation that cannot be applied to the checkout, or whose name is not its own."""
    sentences: list[str] = []
    names: set[str] = set()
    for mutation in mutations:
        if mutation.name in names:
            sentences.append(f"{mutation.name}: another mutation has this name; give it one of its own")
        names.add(mutation.name)
        try:
            if mutation.applied(root) == (root / mutation.file).read_text():
                sentences.append(f"{mutation.name}: old and new are the same text")
        except ValueError as error:
            sentences.append(str(error))
    return sentences
