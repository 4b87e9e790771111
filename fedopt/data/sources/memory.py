"""Arrays that Python code has passed to `fedopt.run`, known by a hash of their content.

The experiment holds the hash and the shapes. The samples are found by the hash, in this process and in those that it
forks, as long as the `fedopt.Data` object that brought them exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

import numpy as np
from pydantic import Field, model_validator

from fedopt.data.dataset import Dataset
from fedopt.data.fingerprint import fingerprint_data, fingerprint_partition
from fedopt.data.sources.base import Source
from fedopt.errors import DataUnavailable
from fedopt.section import wrong

_held: WeakValueDictionary[str, Dataset] = WeakValueDictionary()


class Memory(Source):
    """Made from `fedopt.Data`, not written by hand."""

    is_own: ClassVar[bool] = True

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """sha256 over samples, labels, class names and clients."""
    samples: int = Field(ge=1)
    """Training samples."""
    test_samples: int = Field(ge=0)
    """Test samples."""
    shape: tuple[int, ...] = Field(strict=False)
    """Of one sample."""
    class_names: tuple[str, ...] = Field(strict=False)
    """One name a class, or for each number to predict."""
    numbers: bool = False
    """Whether targets are numbers to predict."""
    own_clients: int = Field(0, ge=0)
    """How many clients the data come with; 0 if none."""

    @model_validator(mode="before")
    @classmethod
    def _need_data(cls, given: Any) -> Any:
        if isinstance(given, dict) and "sha256" not in given:
            raise wrong("name", "memory stands for arrays in Python; pass them: fedopt.run(..., data=fedopt.Data(...))")
        return given

    @classmethod
    def of(cls, dataset: Dataset, standardize: bool = False) -> Self:
        """The source of these samples, which it finds as long as the data set exists."""
        found = cls(
            sha256=_sha256(dataset),
            samples=len(dataset.y_train),
            test_samples=len(dataset.y_test),
            shape=dataset.sample_shape,
            class_names=dataset.class_names,
            numbers=dataset.has_numbers,
            own_clients=len(dataset.natural_clients or ()),
            standardize=standardize,
        )
        _held[found.sha256] = dataset
        return found

    standardize: bool = False
    """Whether each feature is shifted and scaled to mean 0 and variance 1 over the training set."""

    @property
    def has_clients(self) -> bool:
        return self.own_clients > 0

    @classmethod
    def usual_partition(cls, keys: Mapping[str, Any]) -> str:
        member = keys.get("name")
        own = member.own_clients if isinstance(member, Memory) else keys.get("own_clients")
        numbers = member.numbers if isinstance(member, Memory) else keys.get("numbers")
        return "natural" if own else "iid" if numbers else "dirichlet"

    def load(self, clients: int, seed: int) -> Dataset:
        dataset = _held.get(self.sha256)
        if dataset is None:
            raise DataUnavailable(
                "data.name: this experiment's samples are arrays that were passed in Python; pass the same again, for "
                "example fedopt.resume(directory, data=fedopt.Data(...))"
            )
        return dataset

    @property
    def standardizes(self) -> bool:
        return self.standardize

    @property
    def title(self) -> str:
        return f"arrays {self.sha256[:8]}"


def _sha256(dataset: Dataset) -> str:
    digest = hashlib.sha256(fingerprint_data(dataset).encode())
    digest.update(repr(dataset.class_names).encode())
    if dataset.natural_clients is not None:
        digest.update(fingerprint_partition(dataset.natural_clients).encode())
    if dataset.test_clients is not None:
        digest.update(np.ascontiguousarray(dataset.test_clients, dtype="<i8").data)
    return digest.hexdigest()
