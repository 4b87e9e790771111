"""The base of everything that is stored as JSON: a line of metrics.jsonl, or a file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Line(BaseModel):
    """Validated when read, and without NaN when written. The docstring below a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
