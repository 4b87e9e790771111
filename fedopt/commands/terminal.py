"""What terminals can show: characters that an encoding lacks are spelled out, and never end a command."""

from __future__ import annotations

import codecs
import io
import sys

SPELLED = "fedopt.spelled"
"""The name of the handler among those of `codecs`."""

# fmt: off
SPELLING = {
    "±": "+/-", "²": "^2", "⁻": "^-", "·": ".", "×": "x", "→": "->", "…": "...", "−": "-", "–": "-", "—": "-",
    "α": "alpha", "ζ": "zeta", "Σ": "sum", "µ": "u", "∞": "inf", "≤": "<=", "≥": ">=", "ᵢ": "_i",
    "━": "=", "╸": "=", "╺": "=", "─": "-", "│": "|", "•": "*",
}
# fmt: on


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(SPELLING.get(character, "?") for character in missing), error.end


codecs.register_error(SPELLED, _spell)


def spell_out_what_cannot_be_shown() -> None:
    """From now on standard output and standard error take any text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SPELLED)
