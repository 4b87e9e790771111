"""Output on terminals of any encoding: a character that the encoding lacks is replaced, so that no command fails."""

from __future__ import annotations

import codecs
import io
import sys

HANDLER = "fedopt.replace"
"""The name under which `codecs` knows the error handler."""

# fmt: off
REPLACEMENTS = {
    "±": "+/-", "²": "^2", "⁻": "^-", "·": ".", "×": "x", "→": "->", "…": "...", "−": "-", "–": "-", "—": "-",
    "α": "alpha", "ζ": "zeta", "Σ": "sum", "µ": "u", "∞": "inf", "≤": "<=", "≥": ">=", "ᵢ": "_i",
    "━": "=", "╸": "=", "╺": "=", "─": "-", "│": "|", "•": "*",
}
# fmt: on


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(REPLACEMENTS.get(character, "?") for character in missing), error.end


codecs.register_error(HANDLER, _replace)


def replace_unencodable_characters() -> None:
    """Makes standard output and standard error accept any text from now on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)
