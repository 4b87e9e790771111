"""Fills the template of a self-contained page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources


def asset(package: str, name: str) -> str:
    """The text of a file of a package."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with {{name}} replaced by the value of that name."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def embedded(data: object) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
