"""Arrays of the user's own as a data set: checked, images scaled as those of the built-in sets, labels numbered.

Every message begins with `place`, which says where the arrays come from, for example "fedopt.Data" or a file.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedopt.data.dataset import Dataset
from fedopt.errors import DataUnavailable

MANY_CLASSES, LEAST_SHARE = 1000, 0.01
"""More classes than this of which less than this share occurs are not believed."""

CHANNELS = (1, 3, 4)
"""How many channels an image may have: grey, RGB, RGBA."""


@dataclass(frozen=True)
class Part:
    """Training or test samples: features [n, ...] and a label for each, with the names by which messages call them."""

    x: np.ndarray
    y: np.ndarray
    clients: Sequence[Hashable] | None = None
    """The client of each sample, if the samples name one."""
    names: tuple[str, str] = ("x_train", "y_train")


def dataset_of(place: str, train: Part, test: Part | None, class_names: Sequence[str] = ()) -> Dataset:
    """The data set of these parts; without test samples it needs data.validation. DataUnavailable says what is wrong.

    Features may be float, integer or bool arrays, which are used as they are, or uint8 images [n, H, W], [n, C, H, W]
    or [n, H, W, C], which are normalized later. Labels are integers from 0, or names, which are numbered in the order
    of `class_names`, by default sorted. Labels that are numbers to predict are floats [n] or rows [n, outputs].
    """
    if test is None:
        test = Part(train.x[:0], train.y[:0], None if train.clients is None else (), names=("x_test", "y_test"))
    x_train, x_test = (features(f"{place} has {part.names[0]}", part.x) for part in (train, test))
    for part, x in ((train, x_train), (test, x_test)):
        check_rows(place, part.names, x, part.y, may_be_empty=part is test and len(test.y) == 0)
    if x_train.shape[1:] != x_test.shape[1:] or (x_train.dtype == np.uint8) != (x_test.dtype == np.uint8):
        raise DataUnavailable(
            f"{place} has training samples of shape {x_train.shape[1:]} and type {x_train.dtype}, "
            f"and test samples of shape {x_test.shape[1:]} and type {x_test.dtype}; they must be alike"
        )
    if are_numbers(train.y):
        names, labels = numbers(place, (train, test), class_names)
    else:
        names, labels = numbered(place, (train, test), class_names)
    natural, test_clients = natural_clients(place, train, test)
    return Dataset(
        as_tensor(x_train),
        torch.from_numpy(labels[0]),
        as_tensor(x_test),
        torch.from_numpy(labels[1]),
        classes=len(names),
        class_names=names,
        natural_clients=natural,
        test_clients=test_clients,
        client_names=() if train.clients is None else tuple(map(str, _in_order(train.clients))),
    )


def features(what: str, x: np.ndarray) -> np.ndarray:
    """uint8 images as [n, C, H, W], everything else as floats; `what` begins the message of DataUnavailable."""
    if x.dtype == np.uint8:
        return _channels_first(what, x)
    if x.dtype.kind not in "fiub":
        raise DataUnavailable(f"{what} of type {x.dtype}; features are numbers, or uint8 images")
    return np.ascontiguousarray(x, np.float64 if x.dtype.kind != "b" and x.dtype.itemsize >= 8 else np.float32)


def _channels_first(what: str, x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    if x.ndim == 4 and x.shape[3] in CHANNELS:
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.ndim == 4 and x.shape[1] in CHANNELS:
        return x
    raise DataUnavailable(
        f"{what} of type uint8 and shape {x.shape}; uint8 images are [n, H, W], [n, C, H, W] or [n, H, W, C] with "
        "1, 3 or 4 channels, and other features are floats"
    )


def as_tensor(x: np.ndarray) -> Tensor:
    """The array as a tensor. float64 stays float64 until the run's own type is known."""
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))


def check_arrays(place: str, names: tuple[str, str], x: np.ndarray, y: np.ndarray) -> None:
    """DataUnavailable, which begins with `place`, unless x holds finite features and y a label for each row."""
    x_name, y_name = names
    if x.dtype.kind != "f":
        raise DataUnavailable(f"{place} has {x_name} of type {x.dtype}; features are floats")
    if y.dtype.kind not in "iu" and not are_numbers(y):
        raise _no_labels(place, y_name, y)
    check_rows(place, names, x, y)
    if not are_numbers(y):
        _check_numbers(place, y_name, y)


def check_rows(place: str, names: tuple[str, str], x: np.ndarray, y: np.ndarray, may_be_empty: bool = False) -> None:
    """DataUnavailable unless x [n, ...] is finite and y has one entry for each row."""
    x_name, y_name = names
    if y.ndim != 1 and not are_numbers(y):
        raise _no_labels(place, y_name, y)
    if x.ndim < 2 or len(x) != len(y) or (len(x) == 0 and not may_be_empty):
        raise DataUnavailable(
            f"{place} has {x_name} of shape {x.shape} for {len(y)} labels; "
            "there must be one row of features for each label"
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataUnavailable(f"{place} has NaN or infinite values in {x_name}")


def are_numbers(y: np.ndarray) -> bool:
    """Whether labels are numbers to predict: rows of numbers, or fractions. Whole floats [n] may be classes that were
    meant to be integers; they are neither."""
    if y.ndim == 2:
        return y.dtype.kind in "fiub" and y.shape[1] > 0
    return y.ndim == 1 and y.dtype.kind == "f" and not bool(np.all(np.floor(y) == y))


def numbers(place: str, parts: Sequence[Part], names: Sequence[str] = ()) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """The names of the numbers to predict, by default counted from 0, and each part's as float64 [n, outputs]."""
    outputs = parts[0].y.shape[1] if parts[0].y.ndim == 2 else 1
    if names and len(names) != outputs:
        raise DataUnavailable(f"{place} has {len(names)} names for {outputs} numbers to predict; give one for each")
    found = []
    for part in parts:
        if part.y.ndim not in (1, 2) or part.y.dtype.kind not in "fiub":
            raise _no_labels(place, part.names[1], part.y)
        rows = np.ascontiguousarray(part.y.reshape(len(part.y), outputs if not len(part.y) else -1), np.float64)
        if rows.shape[1] != outputs:
            raise DataUnavailable(
                f"{place} has {rows.shape[1]} numbers a sample in {part.names[1]}, and {outputs} in training samples"
            )
        if not np.isfinite(rows).all():
            raise DataUnavailable(f"{place} has NaN or infinite values in {part.names[1]}")
        found.append(rows)
    return tuple(names) or tuple(map(str, range(outputs))), found


def numbered(
    place: str, parts: Sequence[Part], class_names: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """The names of the classes, and the labels of each part as int64 [n]."""
    if all(part.y.dtype.kind in "iub" for part in parts):
        for part in parts:
            _check_numbers(place, part.names[1], part.y)
        together = np.concatenate([part.y for part in parts]).astype(np.int64)
        if class_names and int(together.max()) >= len(class_names):
            raise DataUnavailable(
                f"{place} has label {int(together.max())}, but {len(class_names)} class names; labels count from 0"
            )
        names = tuple(map(str, class_names or range(count_classes(place, together))))
        return names, [part.y.astype(np.int64) for part in parts]
    for part in parts:
        if not (part.y.dtype.kind in "US" or (part.y.dtype == object and all(isinstance(y, str) for y in part.y))):
            raise _no_labels(place, part.names[1], part.y)
    found = sorted({str(label) for part in parts for label in part.y})
    names = tuple(map(str, class_names)) or tuple(found)
    unknown = [label for label in found if label not in set(names)]
    if unknown:
        raise DataUnavailable(f"{place} has a label {unknown[0]!r}, which is no class name ({', '.join(names[:10])})")
    number = {name: index for index, name in enumerate(names)}
    return names, [np.array([number[str(label)] for label in part.y], dtype=np.int64) for part in parts]


def count_classes(place: str, labels: np.ndarray) -> int:
    """How many classes the labels count; DataUnavailable where hardly any occurs: a model has an output for each."""
    classes, different = int(labels.max()) + 1, len(np.unique(labels))
    if classes > MANY_CLASSES and different < LEAST_SHARE * classes:
        raise DataUnavailable(
            f"{place} has a label {classes - 1}, which makes {classes} classes, but only {different} "
            "different labels; number the classes from 0 on, without gaps"
        )
    return classes


def natural_clients(place: str, train: Part, test: Part) -> tuple[tuple[np.ndarray, ...] | None, np.ndarray | None]:
    """Each client's training samples, and the client's number of each test sample [n_test], where samples name clients.

    Clients are numbered in sorted order; names that cannot be compared, in the order in which they first appear.
    """
    for part in (train, test):
        if part.clients is not None and len(part.clients) != len(part.y):
            raise DataUnavailable(
                f"{place} names a client for {len(part.clients)} samples, but {part.names[1]} has {len(part.y)}"
            )
    if train.clients is None:
        if test.clients:
            raise DataUnavailable(f"{place} names the clients of test samples, but not those of training samples")
        return None, None
    number = {name: index for index, name in enumerate(_in_order(train.clients))}
    owner = np.array([number[name] for name in train.clients], dtype=np.int64)
    order = np.argsort(owner, kind="stable")
    natural = tuple(np.split(order, np.cumsum(np.bincount(owner, minlength=len(number)))[:-1]))
    if test.clients is None:
        return natural, None
    strangers = [name for name in _in_order(test.clients) if name not in number]
    if strangers:
        raise DataUnavailable(f"{place} has test samples of a client {strangers[0]!r} that has no training samples")
    return natural, np.array([number[name] for name in test.clients], dtype=np.int64)


def names_of_clients(values: Iterable[Any]) -> list[Hashable]:
    """Plain Python objects for the entries of an array, a column or a list."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    plain = array.tolist() if hasattr(array, "tolist") else list(array)
    assert isinstance(plain, list)
    return plain


def _in_order(names: Sequence[Hashable]) -> list[Hashable]:
    different = dict.fromkeys(names)
    try:
        return sorted(different)  # type: ignore[type-var]
    except TypeError:
        return list(different)


def _check_numbers(place: str, name: str, y: np.ndarray) -> None:
    if len(y) and (y.min() < 0 or int(y.max()) >= 1_000_000):
        raise DataUnavailable(f"{place} has labels from {y.min()} to {y.max()} in {name}; they count from 0")


def _no_labels(place: str, name: str, y: np.ndarray) -> DataUnavailable:
    return DataUnavailable(
        f"{place} has {name} of type {y.dtype} and shape {y.shape}; labels are one integer a sample, or one class name"
        + ("; numbers to predict are rows, [n, 1] for one" if y.dtype.kind == "f" and y.ndim == 1 else "")
    )
