"""The contract of gathering rules: updates are folded in one by one, and become `Totals`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from fedopt.family import Family
from fedopt.registry import Registry
from fedopt.round.gathering import GATHERINGS
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class Collector(ABC):
    """Takes the updates of one round after the other; what it returns must not depend on the order of arrival."""

    @abstractmethod
    def begin(self) -> None:
        """Starts a new round. The totals of the round before become invalid: their memory is used again."""

    @abstractmethod
    def fold(self, client: int, vectors: Vectors, numbers: Mapping[str, float], share: float) -> None:
        """Adds one client's update: vectors [P] each, numbers by name; `share` is p_i. Ties go by client number."""

    @abstractmethod
    def totals(self) -> Totals:
        """What was folded in since `begin`: at least one update."""


class Gathering(Family, ABC):
    """Base of all rules; its fields are the keys of the experiment's [gathering] section."""

    registry: ClassVar[Registry] = GATHERINGS
    holds_updates: ClassVar[bool] = False
    """Whether all updates of a round are held until the last one has come, which takes memory for all of them."""

    @abstractmethod
    def collector(self) -> Collector:
        """A collector that serves all rounds of a run."""
