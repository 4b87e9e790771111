"""Finds misspelled hooks: a method of a member that looks like one of its base, and that nothing calls."""

from __future__ import annotations

import difflib
import functools
from types import FunctionType

SIMILAR = 0.8
"""The ratio of difflib from which on a name is taken for a misspelled one."""

METHODS = (FunctionType, property, classmethod, staticmethod, functools.cached_property)


@functools.cache
def misspelled_hook(kind: type, base: type) -> tuple[str, str] | None:
    """A public method of the class, or of one between it and the base, that the base does not have, with the hook of
    the base that it resembles. None if there is none.

    A class that overrides that hook too has not misspelled it: `corrected` may stand beside `correct`.
    """
    hooks = _public_methods(base)
    for owner in kind.__mro__:
        if owner is base or not issubclass(owner, base):
            continue
        for name in _public_methods(owner):
            close = [] if hasattr(base, name) else difflib.get_close_matches(name, hooks, n=1, cutoff=SIMILAR)
            if close and close[0] not in vars(owner):
                return name, close[0]
    return None


def _public_methods(owner: type) -> list[str]:
    return [name for name, value in vars(owner).items() if not name.startswith("_") and isinstance(value, METHODS)]
