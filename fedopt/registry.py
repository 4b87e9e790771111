"""Names a user may write in an experiment, each with the place in the code that answers to it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping


def nearest(name: str, names: Iterable[str]) -> str:
    """A clause that helps someone who mistyped: the closest valid name, then all of them.

    >>> nearest("scafold", ["fedavg", "scaffold"])
    'did you mean scaffold? (one of fedavg, scaffold)'
    """
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = f"one of {', '.join(known)}"
    return f"did you mean {close[0]}? ({listing})" if close else f"it must be {listing}"


class UnknownName(ValueError):
    """A name that nothing answers to."""


class Registry(Mapping[str, str]):
    """Names to `package.module:attribute`; nothing is imported before it is asked for."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, name: str) -> str:
        """The name itself; UnknownName, with the nearest valid one, if it is not registered."""
        if name not in self._entries:
            raise UnknownName(f"unknown {self.kind} {name!r}; {nearest(name, self._entries)}")
        return name

    def load(self, name: str) -> object:
        """Imports what `name` stands for."""
        return load_attribute(self._entries[self.check(name)])


def load_attribute(place: str) -> object:
    """Imports `package.module:attribute`."""
    module, _, attribute = place.partition(":")
    found: object = getattr(importlib.import_module(module), attribute)
    return found
