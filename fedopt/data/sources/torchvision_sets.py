"""MNIST, Fashion-MNIST, EMNIST, CIFAR-10, CIFAR-100 and SVHN, in the files torchvision knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedopt.data.dataset import Dataset, from_images
from fedopt.data.decoded import Decoded, cached, files_below
from fedopt.data.sources.base import AbsolutePath, Source
from fedopt.errors import DataUnavailable


class TorchvisionSet(Source, ABC):
    """Base of the sources that torchvision reads, and fetches if it may."""

    files: ClassVar[str]
    """Where torchvision looks below `path`."""

    path: AbsolutePath = Field(Path("data"), strict=False, validate_default=True)
    """The folder that holds MNIST/ and the like."""
    download: bool = False
    """Whether torchvision may fetch missing files. Nothing else ever uses the network."""

    @abstractmethod
    def read(self, part: str, **common: Any) -> Any:
        """torchvision's object for the part "train" or "test"; `common` is the root and whether to download."""

    def own_files(self) -> tuple[Path, ...]:
        """The files that torchvision reads, as far as they are there."""
        return files_below(self.path / self.files)

    def load(self, clients: int, seed: int) -> Dataset:
        return cached(self._decoded, self._read_all)

    def _decoded(self) -> Decoded:
        settings = self.model_dump_json(exclude={"path", "download"})
        return Decoded(self.name, settings, f"torchvision {version('torchvision')}", self.own_files())

    def _read_all(self) -> Dataset:
        where = self.path / self.files
        common = {"root": str(self.path), "download": self.download}
        try:
            train, test = self.read("train", **common), self.read("test", **common)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            missing = "not found" in str(error) or isinstance(error, FileNotFoundError)
            raise DataUnavailable(
                f"data.path: {self.name} was looked for at {where.absolute()} and "
                + ("is not there" if missing else f"cannot be read ({str(error).splitlines()[0]})")
                + "; point data.path at the folder that holds it, or let torchvision fetch it with "
                "--set data.download=true"
            ) from error

        x_train, x_test = _channels_first(train.data), _channels_first(test.data)
        y_train, y_test = _labels(train), _labels(test)
        # EMNIST "letters" counts from 1 and keeps an empty class 0: number the classes that occur.
        present = np.unique(y_train)
        every_name = getattr(train, "classes", None) or [str(label) for label in range(int(present.max()) + 1)]
        names = tuple(str(every_name[label]) for label in present)
        return from_images(x_train, np.searchsorted(present, y_train), x_test, np.searchsorted(present, y_test), names)


class Mnist(TorchvisionSet):
    files: ClassVar[str] = "MNIST/raw"

    def read(self, part: str, **common: Any) -> Any:
        return _torchvision().MNIST(train=part == "train", **common)


class FashionMnist(TorchvisionSet):
    files: ClassVar[str] = "FashionMNIST/raw"

    def read(self, part: str, **common: Any) -> Any:
        return _torchvision().FashionMNIST(train=part == "train", **common)


class Emnist(TorchvisionSet):
    files: ClassVar[str] = "EMNIST/raw"

    split: Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"] = "balanced"
    """Which EMNIST."""

    def read(self, part: str, **common: Any) -> Any:
        return _torchvision().EMNIST(train=part == "train", split=self.split, **common)


class Cifar10(TorchvisionSet):
    files: ClassVar[str] = "cifar-10-batches-py"

    def read(self, part: str, **common: Any) -> Any:
        return _torchvision().CIFAR10(train=part == "train", **common)


class Cifar100(TorchvisionSet):
    files: ClassVar[str] = "cifar-100-python"

    def read(self, part: str, **common: Any) -> Any:
        return _torchvision().CIFAR100(train=part == "train", **common)


class Svhn(TorchvisionSet):
    files: ClassVar[str] = "train_32x32.mat and test_32x32.mat"

    def own_files(self) -> tuple[Path, ...]:
        return tuple(file for part in ("train", "test") if (file := self.path / f"{part}_32x32.mat").is_file())

    def read(self, part: str, **common: Any) -> Any:
        return _torchvision().SVHN(split=part, **common)


def _torchvision() -> Any:
    """Imported only to read data: it takes longer than to find that an experiment's key is misspelled."""
    from torchvision import datasets

    return datasets


def _channels_first(images: Any) -> np.ndarray:
    """uint8 [n, C, H, W] from the shapes in use: [n, H, W], [n, H, W, 3], [n, 3, H, W]."""
    pixels = np.asarray(images)
    if pixels.ndim == 3:
        return pixels[:, None]
    return pixels if pixels.shape[1] == 3 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _labels(part: Any) -> np.ndarray:
    return np.asarray(part.labels if hasattr(part, "labels") else part.targets)
