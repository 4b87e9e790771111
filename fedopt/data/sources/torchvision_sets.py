"""MNIST, Fashion-MNIST, EMNIST, CIFAR-10, CIFAR-100 and SVHN, in the files torchvision knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torchvision import datasets

from fedopt.data.dataset import Dataset, from_images
from fedopt.data.settings import DataSettings
from fedopt.errors import DataUnavailable


def load(settings: DataSettings, seed: int) -> Dataset:
    root, download = str(settings.path), settings.download

    def flagged(kind: Callable[..., Any], **more: str) -> tuple[Any, Any]:
        return (
            kind(root, train=True, download=download, **more),
            kind(root, train=False, download=download, **more),
        )

    def svhn() -> tuple[Any, Any]:
        return (
            datasets.SVHN(root, split="train", download=download),
            datasets.SVHN(root, split="test", download=download),
        )

    # name -> where torchvision looks below the root, and how it reads
    readers: dict[str, tuple[str, Callable[[], tuple[Any, Any]]]] = {
        "mnist": ("MNIST/raw", lambda: flagged(datasets.MNIST)),
        "fashionmnist": ("FashionMNIST/raw", lambda: flagged(datasets.FashionMNIST)),
        "emnist": ("EMNIST/raw", lambda: flagged(datasets.EMNIST, split=settings.split)),
        "cifar10": ("cifar-10-batches-py", lambda: flagged(datasets.CIFAR10)),
        "cifar100": ("cifar-100-python", lambda: flagged(datasets.CIFAR100)),
        "svhn": ("train_32x32.mat and test_32x32.mat", svhn),
    }
    place, read = readers[settings.name]
    where = settings.path / place
    try:
        train, test = read()
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        missing = "not found" in str(error) or isinstance(error, FileNotFoundError)
        raise DataUnavailable(
            f"data.path: {settings.name} was looked for at {where.absolute()} and "
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


def _channels_first(images: Any) -> np.ndarray:
    """uint8 [n, C, H, W] from the shapes in use: [n, H, W], [n, H, W, 3], [n, 3, H, W]."""
    pixels = np.asarray(images)
    if pixels.ndim == 3:
        return pixels[:, None]
    return pixels if pixels.shape[1] == 3 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _labels(part: Any) -> np.ndarray:
    return np.asarray(part.labels if hasattr(part, "labels") else part.targets)
