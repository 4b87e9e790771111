"""Which plane is drawn, and what is marked on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simulations.analysis.landscape.planes import Frame, Place


@dataclass(frozen=True)
class View:
    """A plane, the window on it, and the models that are marked."""

    name: str
    """Of the files."""
    title: str
    frame: Frame
    across: list[float]
    up: list[float]
    axes: tuple[str, str]
    """What the directions are, with their units."""
    marks: Mapping[str, Place]
    has_one_unit: bool
    """Whether both directions are drawn to one scale."""
    is_path: bool = False
    """Whether the marks are the models of one run after the other, which a line connects."""
    facts: Sequence[str] = ()
    """Sentences about the plane itself."""
    numbers: Mapping[str, object] = field(default_factory=dict)
