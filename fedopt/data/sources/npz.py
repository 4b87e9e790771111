"""Arrays of one's own: an .npz file with x_train, y_train, x_test, y_test, used as they are."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from fedopt.data.dataset import Dataset
from fedopt.data.sources.base import OwnFiles
from fedopt.errors import DataUnavailable

UNREADABLE = (
    *(ValueError, TypeError, KeyError, AttributeError, RuntimeError),
    *(OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error),
)
"""What numpy and zipfile raise over a file that is damaged, or is something else."""

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class Npz(OwnFiles):
    holds: ClassVar[str] = "an .npz file"

    def load(self, clients: int, seed: int) -> Dataset:
        file = self.path
        arrays = read_archive(file, "data.path")
        missing = [name for name in ARRAYS if name not in arrays]
        if missing:
            raise DataUnavailable(f"data.path: {file} lacks {', '.join(missing)}; it has {', '.join(arrays)}")
        for part in ("train", "test"):
            names = (f"x_{part}", f"y_{part}")
            check_arrays(f"data.path: {file.name}", names, *(arrays[name] for name in names))
        if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
            raise DataUnavailable(
                f"data.path: {file.name} has training samples of shape {arrays['x_train'].shape[1:]} "
                f"and test samples of shape {arrays['x_test'].shape[1:]}"
            )
        classes = _classes(file.name, np.concatenate([arrays["y_train"].reshape(-1), arrays["y_test"].reshape(-1)]))
        return Dataset(
            x_train=as_floats(arrays["x_train"]),
            y_train=torch.from_numpy(arrays["y_train"].astype(np.int64)),
            x_test=as_floats(arrays["x_test"]),
            y_test=torch.from_numpy(arrays["y_test"].astype(np.int64)),
            classes=classes,
            class_names=tuple(str(label) for label in range(classes)),
        )


MANY_CLASSES, LEAST_SHARE = 1000, 0.01
"""More classes than this of which less than this share occurs are not believed."""


def _classes(name: str, labels: np.ndarray) -> int:
    """How many classes the labels count; DataUnavailable where hardly any occurs: a model has an output for each."""
    classes, different = int(labels.max()) + 1, len(np.unique(labels))
    if classes > MANY_CLASSES and different < LEAST_SHARE * classes:
        raise DataUnavailable(
            f"data.path: {name} has a label {classes - 1}, which makes {classes} classes, but only {different} "
            "different labels; number the classes from 0 on, without gaps"
        )
    return classes


def read_archive(file: Path, key: str) -> dict[str, np.ndarray]:
    """All arrays of the file; `key` is what the user gave it by."""
    if not file.is_file():
        raise DataUnavailable(f"{key}: there is no file {file.absolute()}")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise DataUnavailable(f"{key}: {file} is not an .npz file of plain arrays") from error


def as_floats(array: np.ndarray) -> torch.Tensor:
    """float64 stays float64 until the run's own type is known."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float64 if array.dtype.itemsize >= 8 else np.float32))


def check_arrays(place: str, names: tuple[str, str], x: np.ndarray, y: np.ndarray) -> None:
    """DataUnavailable, which begins with `place`, unless x holds finite features and y a label for each row."""
    x_name, y_name = names
    if x.dtype.kind != "f":
        raise DataUnavailable(f"{place} has {x_name} of type {x.dtype}; features are floats")
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataUnavailable(
            f"{place} has {y_name} of type {y.dtype} and shape {y.shape}; labels are one integer a sample"
        )
    if x.ndim < 2 or len(x) != len(y) or len(x) == 0:
        raise DataUnavailable(
            f"{place} has {x_name} of shape {x.shape} for {len(y)} labels; "
            "there must be one row of features for each label"
        )
    if not np.isfinite(x).all():
        raise DataUnavailable(f"{place} has NaN or infinite values in {x_name}")
    if y.min() < 0 or int(y.max()) >= 1_000_000:
        raise DataUnavailable(f"{place} has labels from {y.min()} to {y.max()} in {y_name}; they count from 0")
