"""The experiment's [data] section: which data, and how they are spread over clients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fedopt.data import PARTITIONS, SOURCES
from fedopt.section import Section, wrong

PARTITION_KEYS = {
    "alpha": {"dirichlet", "dirichlet-balanced", "quantity"},
    "shards": {"shards"},
    "classes": {"classes"},
}
"""The keys that only some partitions read."""

SOURCE_KEYS = {"a": "synthetic", "b": "synthetic", "split": "emnist", "image_size": "folder"}
"""The keys that only one source reads."""

DRAWN = {"synthetic"}
"""Sources that draw their samples from the run's seed."""

NEEDS_PATH = {"folder", "npz"}


class DataSettings(Section):
    name: Annotated[str, AfterValidator(SOURCES.check)] = "digits"
    path: Annotated[Path, AfterValidator(Path.absolute)] = Field(Path("data"), strict=False, validate_default=True)
    """Where files are: the folder that holds MNIST/ and the like, the image folder, or the .npz file."""
    download: bool = False
    """Whether torchvision may fetch missing files. Nothing else ever uses the network."""
    split: Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"] = "balanced"
    """Which EMNIST."""
    image_size: int | None = Field(None, ge=1)
    """Side to which images of a folder are resized; without it they must all be of one size."""
    a: float = Field(1.0, ge=0)
    b: float = Field(1.0, ge=0)
    """Synthetic(a, b): how far the clients' models (a) and inputs (b) lie apart."""

    validation: float = Field(0.0, ge=0, lt=1)
    """The share of the training set that is held out and stands in for the test set, to choose by."""

    clients: int = Field(20, ge=1)
    partition: Annotated[str, AfterValidator(PARTITIONS.check)] = "dirichlet"
    """Where the experiment is silent: natural for data with clients of their own (synthetic), else dirichlet."""
    alpha: float = Field(0.1, gt=0)
    shards: int = Field(2, ge=1)
    classes: int = Field(2, ge=1)
    min_samples: int = Field(1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _default_partition(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("name") == "synthetic":
            return {"partition": "natural", **given}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> DataSettings:
        if self.name in NEEDS_PATH and "path" not in self.model_fields_set:
            what = "an .npz file" if self.name == "npz" else "a folder with train/CLASS and test/CLASS"
            raise wrong("path", f"{self.name} needs it: {what}")
        if self.partition == "natural" and self.name != "synthetic":
            raise wrong(
                "partition",
                f"{self.name} comes without clients of its own, so natural does not apply; "
                "choose for example dirichlet",
            )
        return self

    @property
    def unread(self) -> dict[str, str]:
        """Keys that this partition or source does not read, set or not, each with the name that does not read it."""
        by_partition = {key: self.partition for key, users in PARTITION_KEYS.items() if self.partition not in users}
        return by_partition | {key: self.name for key, user in SOURCE_KEYS.items() if self.name != user}

    @property
    def is_drawn(self) -> bool:
        """Whether the samples themselves, and not only who holds them, depend on the run's seed."""
        return self.name in DRAWN or self.validation > 0

    def notes(self) -> list[str]:
        """One sentence for each key that was set but that this partition or source does not read."""
        defaults = DataSettings()
        return [
            f"data.{key} is not used by {by}"
            for key, by in self.unread.items()
            if getattr(self, key) != getattr(defaults, key)
        ]
