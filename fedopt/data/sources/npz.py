"""Arrays of one's own: an .npz file with x_train, y_train, x_test, y_test, used as they are."""

from __future__ import annotations

import zipfile
import zlib

import numpy as np
import torch

from fedopt.data.dataset import Dataset
from fedopt.data.settings import DataSettings
from fedopt.errors import DataUnavailable

UNREADABLE = (
    *(ValueError, TypeError, KeyError, AttributeError, RuntimeError),
    *(OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error),
)
"""What numpy and zipfile raise over a file that is damaged, or is something else."""

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def load(settings: DataSettings, seed: int) -> Dataset:
    file = settings.path
    if not file.is_file():
        raise DataUnavailable(f"data.path: there is no file {file.absolute()}")
    try:
        with np.load(file, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive]
            if missing:
                raise DataUnavailable(
                    f"data.path: {file} lacks {', '.join(missing)}; it has {', '.join(archive.files)}"
                )
            arrays = {name: archive[name] for name in ARRAYS}
    except UNREADABLE as error:
        raise DataUnavailable(f"data.path: {file} is not an .npz file of plain arrays") from error
    for part in ("train", "test"):
        _check(file.name, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise DataUnavailable(
            f"data.path: {file.name} has training samples of shape {arrays['x_train'].shape[1:]} "
            f"and test samples of shape {arrays['x_test'].shape[1:]}"
        )
    classes = int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1
    return Dataset(
        x_train=_floats(arrays["x_train"]),
        y_train=torch.from_numpy(arrays["y_train"].astype(np.int64)),
        x_test=_floats(arrays["x_test"]),
        y_test=torch.from_numpy(arrays["y_test"].astype(np.int64)),
        classes=classes,
        class_names=tuple(str(label) for label in range(classes)),
    )


def _floats(array: np.ndarray) -> torch.Tensor:
    """float64 stays float64 until the run's own type is known."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float64 if array.dtype.itemsize >= 8 else np.float32))


def _check(file: str, part: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.dtype.kind != "f":
        raise DataUnavailable(f"data.path: {file} has x_{part} of type {x.dtype}; features are floats")
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise DataUnavailable(
            f"data.path: {file} has y_{part} of type {y.dtype} and shape {y.shape}; labels are one integer a sample"
        )
    if x.ndim < 2 or len(x) != len(y) or len(x) == 0:
        raise DataUnavailable(
            f"data.path: {file} has x_{part} of shape {x.shape} for {len(y)} labels; "
            "there must be one row of features for each label"
        )
    if not np.isfinite(x).all():
        raise DataUnavailable(f"data.path: {file} has NaN or infinite values in x_{part}")
    if y.min() < 0 or int(y.max()) >= 1_000_000:
        raise DataUnavailable(
            f"data.path: {file} has labels from {y.min()} to {y.max()} in y_{part}; they count from 0"
        )
