"""Replies that no honest client sends, each with a name: the same ones every time."""

from __future__ import annotations

from tests.server.hostile.cases import Case
from tests.server.hostile.content_cases import array_cases, error_cases, field_cases, record_cases
from tests.server.hostile.file_cases import file_cases
from tests.server.hostile.object_cases import object_cases


def corpus() -> list[Case]:
    """All cases."""
    parts = (field_cases(), array_cases(), file_cases(), record_cases(), error_cases(), object_cases())
    return [case for part in parts for case in part]
