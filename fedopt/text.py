"""Texts for people: untrusted ones made safe to print, log and store, and numbers of things."""

from __future__ import annotations

LONGEST = 500
"""Characters of an untrusted text that are shown."""


def count(number: int | str, thing: str, things: str = "") -> str:
    """ "1 round", "2 rounds"; `things` is for plurals without an s."""
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"


def plain(text: object, longest: int = LONGEST) -> str:
    """`text` on one line of at most `longest` characters.

    Control and formatting characters (escape sequences, line breaks, changes of writing direction) are written as
    Python escapes, so that a terminal does not obey them and a log line stays one line. Markup is left as it is:
    print the result with markup=False.
    """
    given = str(text)
    shown = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in given[: longest + 1]
    )
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
