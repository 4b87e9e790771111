"""Parameters by patterns of their names, as model.freeze and local.groups have them."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence

from fedopt.errors import InvalidExperiment
from fedopt.registry import nearest

NOT = "!"
"""Begins a pattern that excepts parameters."""


def matched(patterns: Sequence[str], names: Collection[str], nothing: str) -> set[str]:
    """The names that the patterns fit, taken in order.

    InvalidExperiment for a pattern that fits none; its sentence begins with `nothing`, as "model.freeze: no parameter".
    """
    found: set[str] = set()
    for pattern in patterns:
        meant = pattern.removeprefix(NOT)
        fitting = fnmatch.filter(names, meant)
        if not fitting:
            raise InvalidExperiment(f"{nothing} is named {meant!r}; {nearest(meant, tuple(names))}")
        found = found.difference(fitting) if pattern.startswith(NOT) else found.union(fitting)
    return found
