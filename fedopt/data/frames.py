"""From a pandas DataFrame to features, labels and clients."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedopt.data.arrays import Part, names_of_clients
from fedopt.errors import DataUnavailable

Frame = Any
"""A pandas DataFrame; pandas is imported only where a table is read."""

MANY_CLASSES = 1000
"""More different labels than this are taken for a quantity to predict, not for classes."""


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what."""

    label: str
    client: str | None = None
    features: Sequence[str] = ()
    """By default all columns but the label, the client and those of `drop`."""
    drop: Sequence[str] = ()
    numbers: bool = False
    """Whether the label is a number to predict."""

    def check(self, place: str, frame: Frame) -> None:
        """DataUnavailable for a column that the table lacks."""
        there = [str(name) for name in frame.columns]
        asked: dict[str, Sequence[str | None]] = {
            "label": [self.label],
            "client": [self.client],
            "features": self.features,
            "drop": self.drop,
        }
        for key, names in asked.items():
            for name in names:
                if name is not None and name not in there:
                    close = difflib.get_close_matches(name, there, n=1)
                    meant = f"; did you mean {close[0]!r}? It has" if close else "; it has"
                    raise DataUnavailable(f"{place} has no column {name!r} ({key}){meant} {_listed(there)}")
        if self.features and self.drop:
            raise DataUnavailable(f"{place}: give features or drop, not both")

    def of_features(self, frame: Frame) -> list[str]:
        other = {self.label, self.client, *self.drop}
        return list(self.features) or [str(name) for name in frame.columns if str(name) not in other]


def parts_of(
    place: str, train: Frame, test: Frame | None, columns: Columns
) -> tuple[Part, Part | None, tuple[str, ...]]:
    """Training part, test part and class names. DataUnavailable, which begins with `place`, says what is wrong.

    Classes are the different labels of both tables, in sorted order.
    """
    frames = {place: train} if test is None else {place: train, f"{place} (test)": test}
    for where, frame in frames.items():
        if len(set(map(str, frame.columns))) < len(frame.columns):
            raise DataUnavailable(f"{where} has two columns of the same name")
        columns.check(where, frame)
    names = columns.of_features(train)
    if columns.numbers:
        return _with_numbers(frames, names, columns)
    labels = [_labels(where, frame[columns.label], columns.label) for where, frame in frames.items()]
    classes, numbers = np.unique(np.concatenate(labels), return_inverse=True)
    if len(classes) > MANY_CLASSES:
        raise DataUnavailable(
            f"{place} has {len(classes)} different labels in {columns.label!r}; "
            f'a label is one of at most {MANY_CLASSES} classes, or with targets = "numbers" a number to predict'
        )
    y = np.split(numbers.reshape(-1), [len(labels[0])])
    found = [
        Part(_features(where, frame, names), y[place_], _clients(where, frame, columns.client), part_names)
        for place_, ((where, frame), part_names) in enumerate(
            zip(frames.items(), (("the features", columns.label), ("the test features", columns.label)), strict=False)
        )
    ]
    return found[0], found[1] if test is not None else None, tuple(str(name) for name in classes.tolist())


def _with_numbers(
    frames: Mapping[str, Frame], names: Sequence[str], columns: Columns
) -> tuple[Part, Part | None, tuple[str, ...]]:
    """The parts of tables whose label is a number to predict, with its name."""
    called = (("the features", columns.label), ("the test features", columns.label))
    found = [
        Part(
            _features(where, frame, names),
            _features(where, frame, [columns.label]),
            _clients(where, frame, columns.client),
            part_names,
        )
        for (where, frame), part_names in zip(frames.items(), called, strict=False)
    ]
    return found[0], found[1] if len(found) > 1 else None, (columns.label,)


def _labels(place: str, column: Any, name: str) -> np.ndarray:
    """Integers or strings."""
    if column.isna().any():
        raise DataUnavailable(f"{place} has {int(column.isna().sum())} rows without a label in {name!r}")
    values = np.asarray(column.to_numpy())
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind == "f" and (values == np.floor(values)).all() and (np.abs(values) < 2**53).all():
        return values.astype(np.int64)  # a column that had missing values in an earlier step
    if values.dtype.kind in "US" or all(isinstance(value, str) for value in values):
        return values.astype(str)
    raise DataUnavailable(
        f"{place} has labels of type {values.dtype} in {name!r}; a label is a whole number or a text, or with "
        'targets = "numbers" a number to predict'
    )


def _features(place: str, frame: Frame, names: Sequence[str]) -> np.ndarray:
    """float64 [n, columns]"""
    if not names:
        raise DataUnavailable(f"{place} has no column of features")
    missing = [name for name in names if name not in set(map(str, frame.columns))]
    if missing:
        raise DataUnavailable(f"{place} has no column {missing[0]!r}, which the training table has")
    by_name = {str(name): name for name in frame.columns}
    chosen = [frame[by_name[name]] for name in names]
    no_numbers = [name for name, column in zip(names, chosen, strict=True) if not _is_numeric(column)]
    if no_numbers:
        raise DataUnavailable(
            f"{place} has columns that are not numbers: {_listed(no_numbers)}; leave them out with "
            f"drop = {_toml(no_numbers[:10])}, or turn them into numbers (pandas.get_dummies makes one column of "
            "each value)"
        )
    incomplete = [name for name, column in zip(names, chosen, strict=True) if column.isna().any()]
    if incomplete:
        raise DataUnavailable(
            f"{place} has missing values in {_listed(incomplete)}; fill them in, leave out these rows, or leave out "
            f"these columns with drop = {_toml(incomplete[:10])}"
        )
    values = np.stack([column.to_numpy(dtype=np.float64) for column in chosen], axis=1)
    infinite = [name for name, finite in zip(names, np.isfinite(values).all(axis=0), strict=True) if not finite]
    if infinite:
        raise DataUnavailable(
            f"{place} has infinite values in {_listed(infinite)}; replace them, or leave out these columns with "
            f"drop = {_toml(infinite[:10])}"
        )
    return values


def _is_numeric(column: Any) -> bool:
    return getattr(column.dtype, "kind", "O") in "iufb" and not hasattr(column.dtype, "categories")


def _clients(place: str, frame: Frame, name: str | None) -> list[Hashable] | None:
    if name is None:
        return None
    missing = int(frame[name].isna().sum())
    if missing:
        raise DataUnavailable(f"{place} has {missing} rows without a client in {name!r}")
    return names_of_clients(frame[name])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _toml(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
