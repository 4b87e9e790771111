"""What pydantic finds wrong with settings, as sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from fedopt.registry import nearest

UNKNOWN_KEY = "unknown key; "

Meant = Callable[[str, str], str | None]
"""From a section and an unknown key in it to the `section.key` that was probably meant, if it is known."""


def explain(error: ValidationError, meant: Meant = lambda section, key: None) -> str:
    """One sentence for each mistake, with the key's path: `data.alpha: must be greater than 0, not -1`."""
    mistakes: dict[str, list[dict[str, Any]]] = {}
    for mistake in error.errors():
        mistakes.setdefault(_place(dict(mistake)), []).append(dict(mistake))
    return "\n".join(f"{place}: {_told(at_place, meant)}" for place, at_place in mistakes.items())


def _place(mistake: dict[str, Any]) -> str:
    """The key's path; pydantic's names for the branches of `int | Literal` are left out."""
    parts = [str(part) for part in mistake["loc"] if part != "int" and not str(part).startswith("literal[")]
    return ".".join(parts + ([mistake["ctx"]["key"]] if mistake["type"] == "wrong_key" else []))


def _told(mistakes: list[dict[str, Any]], meant: Meant) -> str:
    mistake, *others = mistakes
    context, given = mistake.get("ctx", {}), mistake["input"]
    if others:  # neither a number nor the one word that may stand for it
        return f"must be a whole number or {others[0]['ctx']['expected']}, not {given!r}"
    match mistake["type"]:
        case "wrong_key":
            sentence = str(context["sentence"])
            other = meant(str(mistake["loc"][0]), context["key"]) if len(mistake["loc"]) == 1 else None
            return f"{UNKNOWN_KEY}did you mean {other}?" if other and sentence.startswith(UNKNOWN_KEY) else sentence
        case "value_error":
            return str(context["error"])
        case "literal_error":
            names = [name.strip("'") for name in context["expected"].replace(" or ", ", ").split(", ")]
            return f"unknown value {given!r}; {nearest(str(given), names)}"
        case "int_type" | "int_from_float":
            return f"must be a whole number, not {given!r}"
        case "float_type":
            return f"must be a number, not {given!r}"
        case "bool_type":
            return f"must be true or false, not {given!r}"
        case "path_type":
            return f"must be a path, not {given!r}"
        case "missing":
            return "one more value is needed here"
        case "model_type" | "dict_type":
            return "must be a section with keys"
        case _:
            return f"{mistake['msg'].replace('Input should', 'must')}, not {given!r}"
