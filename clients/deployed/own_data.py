"""A deployed client's own data: a file or a folder on its machine, which never leaves it.

FILE.npz    x_train [n, ...] floats and y_train [n] integer labels, used unchanged (x and y are accepted too)
FILE.csv    a table (also .parquet, .feather, .arrow) with the columns data.label and data.features of the experiment
FOLDER      CLASS/*.png, or train/CLASS/*.png, also in subfolders; CLASS is a class name of the experiment
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedopt.data.arrays import Part, are_numbers, as_tensor, check_arrays, check_rows, features, numbers
from fedopt.data.dataset import moments_of, scaled, scaling_of
from fedopt.data.frames import Columns, parts_of
from fedopt.data.sources.base import Source
from fedopt.data.sources.folder import empty_class, images_below, read_images
from fedopt.data.sources.npz import read_archive
from fedopt.data.sources.table import Table, read_frame
from fedopt.errors import DataUnavailable


def read_own_data(
    path: Path, class_names: Sequence[str], source: Source, has_numbers: bool = False
) -> tuple[Tensor, Tensor]:
    """Samples and labels for an experiment whose data have this source and these classes, or numbers to predict.

    DataUnavailable says why they cannot be used.
    """
    if path.is_dir():
        samples, labels = _folder(path, class_names, source.resized_to)
    elif isinstance(source, Table) and path.suffix != ".npz":
        samples, labels = _table(path, class_names, source)
    elif path.is_file():
        samples, labels = _archive(path)
    else:
        raise DataUnavailable(f"--data: there is neither a file nor a folder {path.absolute()}")
    if has_numbers != labels.is_floating_point():
        asked, found = ("numbers to predict", "classes") if has_numbers else ("classes", "numbers to predict")
        raise DataUnavailable(f"--data: {path} has {found} as labels; the experiment's are {asked}")
    if has_numbers and labels.shape[1] != len(class_names):
        raise DataUnavailable(
            f"--data: {path} has {labels.shape[1]} numbers a sample; the experiment's samples have {len(class_names)}"
        )
    if not has_numbers and int(labels.max()) >= len(class_names):
        raise DataUnavailable(
            f"--data: {path} has label {int(labels.max())}; the experiment's {len(class_names)} classes count from 0"
        )
    return samples, labels


def _table(file: Path, class_names: Sequence[str], source: Table) -> tuple[Tensor, Tensor]:
    """The experiment's columns of the file, standardized over this client's own samples if the experiment says so."""
    if not source.features:
        raise DataUnavailable(
            "--data: the server's experiment does not say which columns are features, and so in which order they come; "
            "its data.features must name them"
        )
    place = f"--data: {file.name}"
    columns = Columns(source.label, features=source.features, numbers=source.targets == "numbers")
    part, _, found = parts_of(place, read_frame(file, "--data"), None, columns)
    check_rows(place, part.names, part.x, part.y)
    if columns.numbers:
        return _standardized(as_tensor(part.x), source), torch.from_numpy(numbers(place, [part])[1][0])
    strangers = [name for name in found if name not in class_names]
    if strangers:
        raise DataUnavailable(f"{place} has a label {strangers[0]}; the classes are {', '.join(class_names[:10])}")
    x, y = as_tensor(part.x), np.array([class_names.index(name) for name in found], dtype=np.int64)[part.y]
    return _standardized(x, source), torch.from_numpy(y)


def _standardized(x: Tensor, source: Source) -> Tensor:
    if not source.standardizes:
        return x
    shift, scale = moments_of(x)
    return (x - shift) / scale


def _archive(file: Path) -> tuple[Tensor, Tensor]:
    arrays = read_archive(file, "--data")
    names = ("x_train", "y_train") if "x_train" in arrays else ("x", "y")
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataUnavailable(f"--data: {file} lacks x_train and y_train; it has {', '.join(arrays) or 'nothing'}")
    x, y = (arrays[name] for name in names)
    check_arrays(f"--data: {file}", names, x, y)
    y = numbers(f"--data: {file}", [Part(x, y, names=names)])[1][0] if are_numbers(y) else y.astype(np.int64)
    return as_tensor(features(f"--data: {file} has {names[0]}", x)), torch.from_numpy(y)


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
