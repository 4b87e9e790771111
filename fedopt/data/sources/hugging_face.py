"""Data sets of the library `datasets`: from the Hugging Face Hub, from its cache, or from a local folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from fedopt.data.arrays import Part, dataset_of, names_of_clients
from fedopt.data.dataset import Dataset
from fedopt.data.pictures import pixels_of, stacked
from fedopt.data.sources.base import Source
from fedopt.errors import DataUnavailable
from fedopt.imports import optional
from fedopt.section import wrong

Split = Any
"""A `datasets.Dataset`; the library is imported only where it is read."""

TEST_SPLITS = ("test", "validation", "valid", "dev")
"""Where test samples are looked for, in this order."""

LABELS = ("label", "labels", "y", "target", "targets", "class")
"""Names that a column of labels has by custom."""

ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class HuggingFace(Source):
    """`hf:NAME` of the Hub, as hf:ylecun/mnist, or `hf:./FOLDER` that `save_to_disk` wrote or that holds data files."""

    config: str | None = None
    """Which configuration (subset), for data sets that have several."""
    revision: str | None = None
    """Which commit, tag or branch of the data set on the Hub."""
    split: str = "train"
    """The split of training samples."""
    test_split: str | None = None
    """The split of test samples; by default test, validation, valid or dev, the first that is there."""
    label: str | None = None
    """The column of labels; by default the only one of type ClassLabel, or one that is called label, y or target."""
    client: str | None = None
    """The column that names each sample's client, for the partition natural, which is then the default."""
    features: tuple[str, ...] = Field((), strict=False)
    """The column of images, or the columns of numbers; by default the only one of images, or all of numbers."""
    image_size: int | None = Field(None, ge=1)
    """Side to which images are resized; without it they must all be of one size."""
    download: bool = False
    """Whether the data set may be fetched from the Hub. Otherwise it is read from the cache of `datasets`."""

    @model_validator(mode="after")
    def _name_something(self) -> HuggingFace:
        if not self.is_local and not ON_THE_HUB.fullmatch(self.after_prefix):
            raise wrong("name", f"{self.name} is neither hf:OWNER/NAME nor a folder, as hf:./FOLDER")
        if self.is_local:
            object.__setattr__(self, "name", f"hf:{Path(self.after_prefix).expanduser().absolute()}")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the name is that of a folder."""
        return self.after_prefix.startswith((".", "/", "~"))

    @property
    def names_a_folder(self) -> bool:
        return self.is_local

    @property
    def has_clients(self) -> bool:
        return self.client is not None

    @classmethod
    def usual_partition(cls, keys: Mapping[str, Any]) -> str:
        member = keys.get("name")
        client = member.client if isinstance(member, HuggingFace) else keys.get("client")
        return "natural" if client else "dirichlet"

    @property
    def resized_to(self) -> int | None:
        return self.image_size

    @property
    def title(self) -> str:
        return Path(self.after_prefix).name

    def load(self, clients: int, seed: int) -> Dataset:
        splits = self._read()
        if self.split not in splits:
            raise DataUnavailable(f"data.split: {self.name} has no split {self.split}; it has {', '.join(splits)}")
        test = self.test_split or next((name for name in TEST_SPLITS if name in splits and name != self.split), None)
        if test is not None and test not in splits:
            raise DataUnavailable(f"data.test_split: {self.name} has no split {test}; it has {', '.join(splits)}")
        train = splits[self.split]
        label, features = self._label_of(train), self._features_of(train)
        kind = train.features[label]
        names = tuple(kind.names) if hasattr(kind, "names") else ()
        return dataset_of(
            f"data.name: {self.name}",
            self._part(train, features, label),
            None if test is None else self._part(splits[test], features, label),
            names,
        )

    def _read(self) -> Mapping[str, Split]:
        """The splits by name."""
        datasets = optional("datasets", f"data.name: {self.name}", "hf")
        folder = Path(self.after_prefix)
        if self.is_local and not folder.is_dir():
            raise DataUnavailable(f"data.name: there is no folder {folder}")
        if not self.is_local and folder.is_dir():
            raise DataUnavailable(
                f"data.name: there is a folder {self.after_prefix} here; hf:./{self.after_prefix} names it"
            )
        try:
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                found = datasets.load_from_disk(str(folder))
            elif self.is_local or self.download:
                found = datasets.load_dataset(self.after_prefix, self.config, revision=self.revision)
            else:
                with _offline():
                    found = datasets.load_dataset(self.after_prefix, self.config, revision=self.revision)
        # Whatever the library and those below it raise over missing or damaged data, or over the network.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            remedy = (
                "check the name and the network"
                if self.download
                else "it is not in the cache: let it be fetched with --set data.download=true"
            )
            raise DataUnavailable(
                f"data.name: {self.name} cannot be read" + ("" if self.is_local else f"; {remedy}") + f" ({reason})"
            ) from error
        return found if isinstance(found, dict) else {"train": found}

    def _label_of(self, split: Split) -> str:
        columns = dict(split.features)
        if self.label is not None:
            return self._known("label", self.label, columns)
        classes = [name for name, kind in columns.items() if hasattr(kind, "names") and hasattr(kind, "str2int")]
        by_custom = [name for name in LABELS if name in columns]
        found = classes if len(classes) == 1 else [name for name in by_custom if name in classes] or by_custom
        if not found or (len(classes) > 1 and found[0] not in classes):
            raise DataUnavailable(
                f"data.label: which column of {self.name} holds labels? it has {', '.join(classes or columns)}"
            )
        return found[0]

    def _features_of(self, split: Split) -> list[str]:
        columns = dict(split.features)
        if self.features:
            return [self._known("features", name, columns) for name in self.features]
        others = {name: kind for name, kind in columns.items() if name not in (self._label_of(split), self.client)}
        images = [name for name, kind in others.items() if type(kind).__name__ == "Image"]
        numbers = [name for name, kind in others.items() if _is_numeric(kind)]
        if len(images) > 1 or not (images or numbers):
            raise DataUnavailable(
                f"data.features: which column of {self.name} holds the samples? it has {', '.join(others)}; a column "
                "of images or columns of numbers can be learned from"
            )
        return images or numbers

    def _known(self, key: str, name: str, columns: Mapping[str, Any]) -> str:
        if name not in columns:
            raise DataUnavailable(f"data.{key}: {self.name} has no column {name}; it has {', '.join(columns)}")
        return name

    def _part(self, split: Split, features: Sequence[str], label: str) -> Part:
        columns = dict(split.features)
        for name in (*features, label):
            self._known("features", name, columns)
        if type(columns[features[0]]).__name__ == "Image":
            if len(features) > 1:
                raise DataUnavailable("data.features: name one column of images, or columns of numbers")
            images = (row[features[0]] for row in split.select_columns([features[0]]))
            x = stacked(pixels_of(images, self.image_size, f"data.name: {self.name}"))
        else:
            x = self._numbers(split, features, columns)
        clients = None
        if self.client is not None:
            self._known("client", self.client, columns)
            clients = names_of_clients(split[self.client][:])
        return Part(x, np.asarray(split[label][:]), clients, (", ".join(features), label))

    def _numbers(self, split: Split, features: Sequence[str], columns: Mapping[str, Any]) -> np.ndarray:
        """[n, columns], or the single column's own shape [n, ...]."""
        no_numbers = [name for name in features if not _is_numeric(columns[name])]
        if no_numbers:
            raise DataUnavailable(
                f"data.features: {no_numbers[0]} of {self.name} holds neither numbers nor images; turn it into numbers "
                "in Python, and pass fedopt.Data"
            )
        try:
            arrays = [_column(split, name) for name in features]
        except ValueError as error:
            raise DataUnavailable(f"data.features: a column of {self.name} has lists of different lengths") from error
        if any(array.dtype == object for array in arrays):
            raise DataUnavailable(f"data.features: a column of {self.name} has missing values or lists that differ")
        if len(arrays) == 1:
            return arrays[0] if arrays[0].ndim > 1 else arrays[0][:, None]
        if any(array.ndim > 1 for array in arrays):
            raise DataUnavailable("data.features: name one column of lists, or columns of single numbers")
        return np.stack(arrays, axis=1)


def _column(split: Split, name: str) -> np.ndarray:
    """All values of a column, in its own type."""
    dtype = np.dtype(_dtype(split.features[name]))
    return np.asarray(split.with_format("numpy", columns=[name], dtype=dtype)[name][:])


def _dtype(kind: Any) -> str:
    """What a column's entries, or those of its lists, are made of."""
    inner = getattr(kind, "feature", None)
    return str(getattr(kind, "dtype", "")) if inner is None else _dtype(inner)


def _is_numeric(kind: Any) -> bool:
    """Whether a column's type is a number, or lists of them."""
    return not hasattr(kind, "names") and _dtype(kind).startswith(("int", "uint", "float", "bool"))


@contextmanager
def _offline() -> Iterator[None]:
    """Keeps `datasets` from the network: it reads its cache alone."""
    modules = [optional(name, "hf:NAME", "hf") for name in ("huggingface_hub.constants", "datasets.config")]
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value
