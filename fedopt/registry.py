"""The names that an experiment may use, each with the class or function that it stands for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


def nearest(name: str, names: Iterable[str]) -> str:
    """A clause for an error message about a misspelled name: the closest valid name, then all of them.

    >>> nearest("scafold", ["fedavg", "scaffold"])
    'did you mean scaffold? (one of fedavg, scaffold)'
    """
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = f"one of {', '.join(known)}"
    return f"did you mean {close[0]}? ({listing})" if close else f"it must be {listing}"


class UnknownName(ValueError):
    """A name that is not registered."""


@dataclass(frozen=True)
class Entry:
    """What a name stands for, and what `fedopt list` prints about it."""

    place: str
    """`package.module:attribute`."""
    about: str = ""
    """Half a line."""
    paper: str = ""
    """Authors, year and arXiv number, or where else it appeared."""


class Registry(Mapping[str, str]):
    """Maps names to `package.module:attribute`. Nothing is imported before `load`."""

    def __init__(self, kind: str, entries: Mapping[str, Entry | str]) -> None:
        self.kind = kind
        self._entries = {name: Entry(given) if isinstance(given, str) else given for name, given in entries.items()}

    def __getitem__(self, name: str) -> str:
        return self._entries[name].place

    def entry(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, name: str) -> str:
        """Returns the name; raises UnknownName, with the closest valid one, if it is not registered."""
        if name not in self._entries:
            raise UnknownName(f"unknown {self.kind} {name!r}; {nearest(name, self._entries)}")
        return name

    def load(self, name: str) -> object:
        """Imports what `name` stands for."""
        return load_attribute(self._entries[self.check(name)].place)


def load_attribute(place: str) -> object:
    """Imports `package.module:attribute`."""
    module, _, attribute = place.partition(":")
    found: object = getattr(importlib.import_module(module), attribute)
    return found
