"""The options of a deployed run, besides its directory and its link to the nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fedopt.runs.observers import AnyObserver

Report = Callable[[str], None]
"""Writes one line for the user."""


def _no_check() -> None:
    pass


@dataclass(frozen=True)
class DeploymentOptions:
    """How one server process runs its federation."""

    command: str
    """The command that continues the run, for messages."""
    report: Report
    observers: Sequence[AnyObserver] = ()
    owners: Mapping[int, int] = field(default_factory=dict)
    """The client number of each node that registered with a client's key."""
    engine: str = "flower"
    """The engine's name in the run's summary."""
    check: Callable[[], None] = _no_check
    """Called repeatedly while the server waits. It may raise to end the wait."""
