"""A data source: where training and test samples come from. Each kind is a file here, with its own settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from fedopt.data import SOURCES
from fedopt.data.dataset import Dataset
from fedopt.family import Family
from fedopt.registry import Registry
from fedopt.section import wrong

AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]


class Source(Family, ABC):
    """Base of all data sources. Its fields are keys of the experiment's [data] section."""

    registry: ClassVar[Registry] = SOURCES

    is_drawn: ClassVar[bool] = False
    """Whether the samples themselves are drawn from the run's seed."""
    is_own: ClassVar[bool] = False
    """Whether `path` names files of the user's own, so that other files are other data."""

    names_clients: ClassVar[bool] = False
    """Whether the data always come with clients of their own."""

    @property
    def has_clients(self) -> bool:
        """Whether the data come with clients of their own, or may, which the partition natural takes."""
        return self.names_clients

    @classmethod
    def usual_partition(cls, keys: Mapping[str, Any]) -> str:
        """The partition of an experiment that names none and has these keys in [data]."""
        return "natural" if cls.names_clients else "dirichlet"

    @abstractmethod
    def load(self, clients: int, seed: int) -> Dataset:
        """The data set, uint8 images as they are; for so many clients, where it comes with clients of its own.

        DataUnavailable says where it looked and what to do.
        """

    @property
    def names_a_folder(self) -> bool:
        """Whether its name is that of a folder on this machine, which a server may not choose for its clients."""
        return False

    @property
    def standardizes(self) -> bool:
        """Whether features are to be standardized over the training set; uint8 images are normalized in any case."""
        return False

    @property
    def title(self) -> str:
        """What it is called among data that differ."""
        return self.name

    @property
    def resized_to(self) -> int | None:
        """The side to which images are resized; a deployed client resizes its own images alike."""
        return None

    def generated_bytes(self, clients: int) -> int:
        """About how much memory the samples of so many clients take, where they are generated and not read."""
        return 0


class OwnFiles(Source):
    """Base of the sources that read files of the user's own."""

    is_own: ClassVar[bool] = True
    holds: ClassVar[str]
    """What `path` is, for the message that it is missing."""

    path: AbsolutePath = Field(strict=False)
    """The file or folder to read."""

    @model_validator(mode="before")
    @classmethod
    def _need_a_path(cls, given: Any) -> Any:
        if isinstance(given, dict) and "path" not in given:
            raise wrong("path", f"{given.get('name') or cls.__name__} needs it: {cls.holds}")
        return given

    @property
    def title(self) -> str:
        return self.path.name
