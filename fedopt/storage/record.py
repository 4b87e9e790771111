"""The base of what is stored as JSON, a line of metrics.jsonl or a file of its own."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Line(BaseModel):
    """Checked on the way in, free of NaN on the way out; the docstring below a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
