"""What is known of each registered algorithm: its paper, its formula, its keys, and what travels and is kept.

`fedopt list algorithms` and the docs page are made from this. All of it is read off the classes and their docstrings.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import SURVEYED, Algorithm
from fedopt.algorithms.server_step import ServerStepped
from fedopt.composite import Composite, FamilyField
from fedopt.experiment.keys import Key, key_groups
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import Moments
from fedopt.registry import Entry
from fedopt.round.method import Method


@dataclass(frozen=True)
class Exchange:
    """Names of the vectors of the model's size that travel between the server and a client."""

    down: tuple[str, ...]
    up: tuple[str, ...]


@dataclass(frozen=True)
class AlgorithmFacts:
    """One algorithm with its defaults."""

    name: str
    entry: Entry
    kind: type[Algorithm]
    keys: tuple[Key, ...]
    """Its own keys, and those of all algorithms that have another default here."""

    @cached_property
    def _algorithm(self) -> Algorithm:
        return self.kind()

    @cached_property
    def _method(self) -> Method:
        local = LocalSettings(**self.kind.local_defaults)
        return Method(self._algorithm, moments=Moments.of(local))

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """The exchanges of a round, in order."""
        main = Exchange(("x", *self._method.names_down(torch.zeros(1))), self._method.sends_up)
        return [Exchange(("x",), (SURVEYED,)), main] if self.kind.surveys else [main]

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that it sends beside them."""
        return self._algorithm.sends_numbers

    @property
    def at_server(self) -> tuple[str, ...]:
        """Names of the vectors that the server keeps beside the model."""
        return tuple(self._method.server_state(torch.zeros(1)))

    @property
    def at_clients(self) -> tuple[str, ...]:
        """Names of the vectors that each client keeps between rounds."""
        return tuple(self._method.client_state(torch.zeros(1)))

    @property
    def other_defaults(self) -> Mapping[str, object]:
        """Keys of its server optimizer and of [local] whose defaults are others under this algorithm."""
        server = self.kind.server_defaults if issubclass(self.kind, ServerStepped) else {}
        found: dict[str, object] = {f"algorithm.{key}": value for key, value in server.items()}
        return found | {f"local.{key}": value for key, value in self.kind.local_defaults.items()}

    @property
    def citation(self) -> str:
        """The first paragraph of the module's docstring, on one line."""
        return self._paragraphs[0]

    @property
    def formula(self) -> str:
        """The first indented block of the module's docstring."""
        found = re.search(r"(?:^|\n)((?:    .*\n|\n)+)", f"{self._docstring}\n")
        return textwrap.dedent(found[1]).strip("\n") if found else self.entry.rule

    @property
    def remarks(self) -> Sequence[str]:
        """The other paragraphs of the module's docstring, traps included, on one line each."""
        return self._paragraphs[1:]

    @cached_property
    def _docstring(self) -> str:
        return (sys.modules[self.kind.__module__].__doc__ or "").strip()

    @property
    def _paragraphs(self) -> Sequence[str]:
        flowing = [text for text in re.split(r"\n\s*\n", self._docstring) if not text.startswith("    ")]
        # An indented block may follow its paragraph without an empty line between them.
        lines = ("\n".join(line for line in text.splitlines() if not line.startswith("    ")) for text in flowing)
        return [" ".join(text.split()) for text in lines]


def algorithm_facts() -> list[AlgorithmFacts]:
    """Those of every registered algorithm, in the registry's order."""
    groups = key_groups()
    keys = {name: group.keys for group in groups if group.chosen_by == "algorithm.name" for name in group.members}
    of_server = {
        name: group.keys for group in groups if group.chosen_by == "algorithm.server" for name in group.members
    }
    kinds = {name: cast(type[Algorithm], ALGORITHMS.resolve(name)) for name in ALGORITHMS}
    for name, kind in kinds.items():
        server = _default_server(kind)
        if server != "sgd":  # whose keys its rule reads
            keys[name] = (*keys.get(name, ()), *of_server.get(server, ()))
    return [AlgorithmFacts(name, ALGORITHMS.entry(name), kind, keys.get(name, ())) for name, kind in kinds.items()]


def _default_server(kind: type[Algorithm]) -> str:
    """The server optimizer that an algorithm has by default; sgd, the plain step, if it has none to choose."""
    families: Sequence[FamilyField] = kind.families if issubclass(kind, Composite) else ()
    return next((str(family.default) for family in families if family.key == "server"), "sgd")


def traffic(facts: AlgorithmFacts, mark: Callable[[str], str] = str) -> str:
    """What travels in a round, as half a sentence; `mark` is put on every name."""

    def each(names: Iterable[str]) -> str:
        return ", ".join(map(mark, names))

    parts = [f"down {each(one.down)}; up {each(one.up)}" for one in facts.exchanges]
    numbers = f" and the number{'s' * (len(facts.numbers) > 1)} {each(facts.numbers)}" if facts.numbers else ""
    return "; then ".join(parts) + numbers


def keepers(facts: AlgorithmFacts, mark: Callable[[str], str] = str) -> str:
    """Who keeps what between rounds, as half a sentence; "" if nobody keeps anything beside the model."""
    who = (("the server", facts.at_server), ("each client", facts.at_clients))
    return ", ".join(f"{one} keeps {', '.join(map(mark, names))}" for one, names in who if names)
