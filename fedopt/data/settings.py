"""The experiment's [data] section: which data, and how they are spread over clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field, model_validator

from fedopt.composite import Composite, FamilyField
from fedopt.data import PARTITIONS, SOURCES
from fedopt.data.partitions.base import Partition
from fedopt.data.sources.base import Source
from fedopt.family import Family
from fedopt.section import wrong


def _usual_partition(chosen: Mapping[str, type[Family]], keys: Mapping[str, Any]) -> str:
    return cast(type[Source], chosen["source"]).usual_partition(keys)


class DataSettings(Composite):
    """Its flat keys are those below, `name` for the source, and the keys of the source and of the partition."""

    families: ClassVar[tuple[FamilyField, ...]] = (
        FamilyField("source", "name", SOURCES, "digits"),
        FamilyField("partition", "partition", PARTITIONS, _usual_partition),
    )

    source: Source
    """Which data."""
    validation: float = Field(0.0, ge=0, lt=1)
    """The share of the training set that is held out and stands in for the test set, for choosing hyperparameters."""
    clients: int = Field(20, ge=1)
    """The number of clients, N."""
    partition: Partition
    """How the training samples are spread over clients. By default natural for data with clients of their own, else
    dirichlet."""
    min_samples: int = Field(1, ge=1)
    """Training samples that every client has at least; the partition is drawn again until that holds."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

    @model_validator(mode="after")
    def _consistent(self) -> DataSettings:
        if self.partition.needs_clients and not self.source.has_clients:
            passed = "" if "name" in self.given() else "; for data= with clients, leave it out: it is their default"
            raise wrong(
                "partition",
                f"{self.source.name} comes without clients of its own, so {self.partition.name} does not apply; "
                f"choose for example dirichlet{passed}",
            )
        return self

    @property
    def path(self) -> Path | None:
        """Where the source's files are; None of a source that reads none."""
        path = getattr(self.source, "path", None)
        return path if isinstance(path, Path) else None

    @property
    def is_drawn(self) -> bool:
        """Whether the samples themselves, and not only who holds them, depend on the run's seed."""
        return self.source.is_drawn or self.validation > 0
