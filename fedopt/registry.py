"""The names that an experiment may use, each with the class or function that it stands for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fedopt.errors import InvalidExperiment
from fedopt.imports import CannotImport, is_reading_only, load_outside, place_of
from fedopt.imports import load_attribute as load_attribute

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PLUGINS = "fedopt.plugins"
"""The group of entry points by which an installed package adds names: FAMILY.NAME = "package.module:Class"."""


MANY = 20
"""More names than this are not listed behind one that was probably meant."""


def nearest(name: str, names: Iterable[str]) -> str:
    """A clause for an error message about a misspelled name: the closest valid name, then all if they are not many.

    >>> nearest("scafold", ["fedavg", "scaffold"])
    'did you mean scaffold? (one of fedavg, scaffold)'
    >>> nearest("fedadma", ["fedlada", "fedadam"])   # the same letters in another order come first
    'did you mean fedadam? (one of fedlada, fedadam)'
    """
    known = list(names)
    swapped = [other for other in known if sorted(other) == sorted(name)]
    close = swapped or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listing = f"one of {', '.join(known)}"
    if close and len(known) > MANY:
        return f"did you mean {close[0]}?"
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
    rule: str = ""
    """The update in one line, for algorithms and optimizers."""


class Registry(Mapping[str, str]):
    """Maps names to `package.module:attribute`. Nothing is imported before `load` or `resolve`.

    The names of a family are those that it has here, and those that installed packages add to it. The latter are looked
    up only when a name is not one of the first, or when all names are listed.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Entry | str],
        base: str = "",
        plugins: str = "",
        other: str = "",
        prefixes: Mapping[str, Entry] | None = None,
    ) -> None:
        """`kind` is what messages call a member.

        The rest is for a family. `base` is the place of the class that all members derive from, as
        `fedopt.algorithms.base:Algorithm`; `plugins` is what an entry point's name begins with where that is not the
        kind, as `algorithm` in `algorithm.mine`; `other` is the place of the member that stands for anything from
        outside that is no member; `prefixes` are what names of a library begin with, as `timm` in `timm:resnet18`, each
        with the member that stands for all of them.
        """
        self.prefixes = dict(prefixes or {})
        self.kind, self.base, self._other = kind, base, other
        self._plugin_prefix = plugins or (kind if base else "")
        self._entries = {name: Entry(given) if isinstance(given, str) else given for name, given in entries.items()}

    @cached_property
    def _all(self) -> dict[str, Entry]:
        found = dict(self._entries)
        for point in _plugins(self._plugin_prefix):
            name = point.name.partition(".")[2]
            by = point.dist.name if point.dist is not None else point.value
            if name in found:
                raise InvalidExperiment(
                    f"the installed package {by} adds the {self.kind} {name}, a name that is taken already; "
                    f"uninstall it, or ask its authors for another name"
                )
            found[name] = Entry(point.value.replace(" ", ""), f"from the installed package {by}")
        return found

    def __getitem__(self, name: str) -> str:
        return self.entry(name).place

    def entry(self, name: str) -> Entry:
        return self._entries[name] if name in self._entries else self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def check(self, name: str) -> str:
        """Returns the name; raises UnknownName, with the closest valid one, if it is not registered."""
        if name not in self:
            raise UnknownName(f"unknown {self.kind} {name!r}; {nearest(name, self)}")
        return name

    def load(self, name: str) -> object:
        """Imports what `name` stands for; UnknownName if there is nothing."""
        place = self[self.check(name)]
        if name in self._entries:
            return load_attribute(place)
        try:
            return load_attribute(place)
        except Exception as error:  # a plugin, which may raise anything
            raise UnknownName(f"{name}, {self.entry(name).about}, cannot be imported: {error}") from error

    def resolve(self, name: str) -> type[Any]:
        """The class that an experiment means by `name`: a registered name, `prefix:NAME` of a library, or
        `package.module:Class` from outside.

        UnknownName says why there is none, or why it is not a member of the family.
        """
        prefix, colon, _ = name.partition(":")
        if not colon:
            return self.check_member(self.load(name), name)
        if prefix in self.prefixes:
            return self.check_member(load_attribute(self.prefixes[prefix].place), name)
        if self._other and is_reading_only():
            return self.check_member(load_attribute(self._other), name)
        try:
            return self.check_member(load_outside(name), name)
        except (CannotImport, UnknownName) as error:
            if not self._other:
                raise UnknownName(str(error)) from error
        return self.check_member(load_attribute(self._other), name)

    def check_member(self, member: object, name: str) -> type[Any]:
        """Returns the class; raises UnknownName if it does not derive from the family's base."""
        base = load_attribute(self.base)
        if not (isinstance(member, type) and isinstance(base, type) and issubclass(member, base)):
            must = self.base.replace(":", ".")
            raise UnknownName(f"{name} is no {self.kind}: it must be a class that derives from {must}")
        return member

    def is_outside(self, name: str) -> bool:
        """Whether `name` is `package.module:attribute`: code that is no part of this package, nor of a library that
        has a prefix here."""
        prefix, colon, _ = name.partition(":")
        return bool(colon) and prefix not in self.prefixes

    def prefix_of(self, member: type[Any]) -> str | None:
        """The prefix of the names that this class stands for, if it is not one member but many."""
        place = place_of(member)
        return next((prefix for prefix, entry in self.prefixes.items() if entry.place == place), None)

    def kinds(self) -> Iterator[type[Any]]:
        """The class of each name and of each prefix, without those of plugins that cannot be imported."""
        for name in (*self, *(f"{prefix}:" for prefix in self.prefixes)):
            with suppress(UnknownName):
                yield self.resolve(name)

    def names_of(self, member: type[Any]) -> list[str]:
        """The names that stand for this class."""
        place = place_of(member)
        entries = self._entries if _is_own(member) else self._all
        return [name for name, entry in entries.items() if entry.place == place]


def _is_own(member: type[Any]) -> bool:
    return member.__module__.partition(".")[0] == __name__.partition(".")[0]


def _plugins(prefix: str) -> list[EntryPoint]:
    from importlib.metadata import entry_points  # here, because `fedopt --help` needs none of them

    return [point for point in entry_points(group=PLUGINS) if prefix and point.name.startswith(f"{prefix}.")]
