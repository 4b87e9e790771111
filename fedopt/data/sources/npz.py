"""Arrays of one's own: an .npz file with x_train, y_train, x_test, y_test. uint8 images are normalized, other features
are used as they are. Labels are integers or names; numbers to predict are rows [n, outputs], or floats [n].

`client_train` (or `client`) and `client_test` name the client of each sample, for the partition natural.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from fedopt.data.arrays import Part, dataset_of, names_of_clients
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

    @property
    def has_clients(self) -> bool:
        return True  # which the file decides

    def load(self, clients: int, seed: int) -> Dataset:
        file = self.path
        arrays = read_archive(file, "data.path")
        missing = [name for name in ARRAYS if name not in arrays]
        if missing:
            raise DataUnavailable(f"data.path: {file} lacks {', '.join(missing)}; it has {', '.join(arrays)}")
        train, test = (_part(file, arrays, part) for part in ("train", "test"))
        return dataset_of(f"data.path: {file.name}", train, test)


def _part(file: Path, arrays: Mapping[str, np.ndarray], part: str) -> Part:
    names = (f"x_{part}", f"y_{part}")
    clients = arrays.get(f"client_{part}", arrays.get("client") if part == "train" else None)
    if clients is not None and (clients.ndim != 1 or clients.dtype.kind not in "iuUS"):
        raise DataUnavailable(
            f"data.path: {file.name} has clients of type {clients.dtype} and shape {clients.shape}; "
            "they are one number or name a sample"
        )
    return Part(arrays[names[0]], arrays[names[1]], None if clients is None else names_of_clients(clients), names)


def read_archive(file: Path, key: str) -> dict[str, np.ndarray]:
    """All arrays of the file; `key` is what the user gave it by."""
    if not file.is_file():
        raise DataUnavailable(f"{key}: there is no file {file.absolute()}")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise DataUnavailable(f"{key}: {file} is not an .npz file of plain arrays") from error
