"""The names that an experiment may use, each with the class or function that it stands for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


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
    """Maps names to `package.module:attribute`. Nothing is imported before `load` or `resolve`."""

    def __init__(self, kind: str, entries: Mapping[str, Entry | str], base: str = "") -> None:
        """`base` is the place of the class that all members derive from, as `fedopt.algorithms.base:Algorithm`."""
        self.kind, self.base = kind, base
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

    def resolve(self, name: str) -> type[Any]:
        """The class that an experiment means by `name`: a registered name, or `package.module:Class` from outside.

        UnknownName says why there is none, or why it is not a member of the family.
        """
        return self.check_member(load_outside(name) if ":" in name else self.load(name), name)

    def check_member(self, member: object, name: str) -> type[Any]:
        """Returns the class; raises UnknownName if it does not derive from the family's base."""
        base = load_attribute(self.base)
        if not (isinstance(member, type) and isinstance(base, type) and issubclass(member, base)):
            must = self.base.replace(":", ".")
            raise UnknownName(f"{name} is no {self.kind}: it must be a class that derives from {must}")
        return member

    def names_of(self, member: type[Any]) -> list[str]:
        """The names that stand for this class."""
        place = place_of(member)
        return [name for name, entry in self._entries.items() if entry.place == place]


def place_of(member: type[Any]) -> str:
    """`package.module:Class`."""
    return f"{member.__module__}:{member.__qualname__}"


def load_outside(name: str) -> object:
    """Imports `package.module:Class` from outside; UnknownName if that cannot be done."""
    try:
        return load_attribute(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownName(f"{name} cannot be imported: {error}") from error


def load_attribute(place: str) -> object:
    """Imports `package.module:attribute`."""
    module, _, attribute = place.partition(":")
    found: object = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found
