"""A deployed client's own data: a file or a folder on its machine, which never leaves it.

FILE.npz    x_train [n, ...] floats and y_train [n] integer labels, used unchanged (x and y are accepted too)
FOLDER      CLASS/*.png, or train/CLASS/*.png, also in subfolders; CLASS is a class name of the experiment
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedopt.data.arrays import as_tensor, check_arrays, features
from fedopt.data.dataset import scaled, scaling_of
from fedopt.data.sources.folder import empty_class, images_below, read_images
from fedopt.data.sources.npz import read_archive
from fedopt.errors import DataUnavailable


def read_own_data(path: Path, class_names: Sequence[str], image_size: int | None) -> tuple[Tensor, Tensor]:
    """Samples and labels. Raises DataUnavailable with the reason if they cannot be used."""
    if path.is_dir():
        samples, labels = _folder(path, class_names, image_size)
    elif path.is_file():
        samples, labels = _archive(path)
    else:
        raise DataUnavailable(f"--data: there is neither a file nor a folder {path.absolute()}")
    if int(labels.max()) >= len(class_names):
        raise DataUnavailable(
            f"--data: {path} has label {int(labels.max())}; the experiment's {len(class_names)} classes count from 0"
        )
    return samples, labels


def _archive(file: Path) -> tuple[Tensor, Tensor]:
    arrays = read_archive(file, "--data")
    names = ("x_train", "y_train") if "x_train" in arrays else ("x", "y")
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataUnavailable(f"--data: {file} lacks x_train and y_train; it has {', '.join(arrays) or 'nothing'}")
    x, y = (arrays[name] for name in names)
    check_arrays(f"--data: {file}", names, x, y)
    return as_tensor(features(f"--data: {file} has {names[0]}", x)), torch.from_numpy(y.astype(np.int64))


def _folder(root: Path, class_names: Sequence[str], image_size: int | None) -> tuple[Tensor, Tensor]:
    root = root / "train" if (root / "train").is_dir() else root
    strangers = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name not in class_names)
    if strangers:
        raise DataUnavailable(
            f"--data: {root} has a class {strangers[0]}; the experiment's are {', '.join(class_names[:10])}"
        )
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
        if next(images_below(folder), None) is None:
            raise DataUnavailable(empty_class("--data", folder))
    images, labels = read_images(root, class_names, image_size, "--data")
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    return scaled(pixels, scaling_of(pixels)), torch.from_numpy(labels.astype(np.int64))
