"""A partition: which training samples each client holds. Each kind is a file in this folder, with its own settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedopt.data import PARTITIONS
from fedopt.family import Family
from fedopt.registry import Registry


@dataclass(frozen=True)
class TrainingSet:
    """What a partition may read of the training set."""

    labels: np.ndarray
    """Integers, [n]; the first number to predict where there are no classes."""
    natural_clients: tuple[np.ndarray, ...] | None = None
    """Each client's samples, for data that come with clients of their own."""


class Partition(Family, ABC):
    """Base of all partitions. Its fields are keys of the experiment's [data] section."""

    registry: ClassVar[Registry] = PARTITIONS

    takes_numbers: ClassVar[bool] = False
    """Whether it applies to data whose targets are numbers to predict."""

    @property
    def needs_clients(self) -> bool:
        """Whether it applies only to data that come with clients of their own."""
        return False

    @abstractmethod
    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        """One random draw: for each client the numbers of its samples. Every sample belongs to one client.

        PartitionImpossible if no draw could work. The caller repeats a draw that leaves a client too few samples.
        """

    def milder(self) -> Iterator[dict[str, Any]]:
        """Changes of one key that leave the smallest client more samples, the least change first.

        They are tried, and the first that works is offered, where no draw gives every client enough samples.
        """
        return iter(())

    @property
    def title(self) -> str:
        """The name with what matters most of its settings, for one line about an experiment."""
        return self.name

    @property
    def pieces(self) -> int:
        """Into how many pieces it cuts the data for each client, which bounds the memory that a draw takes."""
        return 1
