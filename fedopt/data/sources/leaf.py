"""Data sets in the JSON format of LEAF: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings"
(arXiv:1812.01097), such as FEMNIST (images as lists of floats) and Shakespeare (the next character after 80).

    {"users": ["ann", ...], "num_samples": [2, ...], "user_data": {"ann": {"x": [...], "y": [...]}, ...}}
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fedopt.data.arrays import Part, dataset_of
from fedopt.data.dataset import Dataset
from fedopt.data.sources.base import OwnFiles
from fedopt.errors import DataUnavailable

ALPHABET = "\n !\"&'(),-." + string.digits + ":;>?" + string.ascii_uppercase + "[]" + string.ascii_lowercase + "}"
"""The 80 characters of LEAF's Shakespeare, in its order."""

SPELLED = {"\n": "newline", " ": "space"}
"""Names of classes that could not be read in a table."""


class Leaf(OwnFiles):
    names_clients: ClassVar[bool] = True
    holds: ClassVar[str] = "a folder with train/*.json and test/*.json"

    reshape: tuple[Annotated[int, Field(ge=1)], ...] = Field((), strict=False)
    """The shape of a sample, for example [1, 28, 28] for FEMNIST, whose images are lists of 784 numbers."""
    alphabet: str = Field(ALPHABET, min_length=1)
    """The characters that samples of text consist of; their places are the numbers in the samples and the labels."""
    users: int | None = Field(None, ge=1)
    """How many users are read, in the order of the files; by default all."""

    def load(self, clients: int, seed: int) -> Dataset:
        train = read_users(self.path / "train", self.users)
        test = read_users(self.path / "test", None) if (self.path / "test").is_dir() else {}
        known = {user: samples for user, samples in test.items() if user in train}
        # LEAF splits each user's samples, or the users themselves; then no training client owns the test samples.
        owned = bool(known)
        tests = self._part(known if owned else test, owned, "test") if test else None
        names = tuple(SPELLED.get(character, character) for character in self.alphabet) if _has_text(train) else ()
        return dataset_of(f"data.path: {self.path.name}", self._part(train, True, "train"), tests, names)

    def _part(self, users: Mapping[str, UserData], owned: bool, part: str) -> Part:
        x = [self._features(f"data.path: {self.path.name}/{part}, user {user}", xs) for user, (xs, _) in users.items()]
        y = [self._labels(f"data.path: {self.path.name}/{part}, user {user}", ys) for user, (_, ys) in users.items()]
        if len({samples.shape[1:] for samples in x}) > 1:
            raise DataUnavailable(f"data.path: {self.path.name}/{part} has samples of different lengths")
        clients = [user for user, labels in zip(users, y, strict=True) for _ in labels]
        names = (f"x of {part}", f"y of {part}")
        return Part(np.concatenate(x), np.concatenate(y), clients if owned else None, names)

    def _features(self, place: str, samples: Sequence[Any]) -> np.ndarray:
        """[n, ...], numbers as float32, characters by their places in the alphabet."""
        if samples and all(isinstance(sample, str) for sample in samples):
            if len({len(sample) for sample in samples}) > 1:
                raise DataUnavailable(f"{place} has texts of different lengths")
            x = self._indices(place, "".join(samples)).reshape(len(samples), -1).astype(np.float32)
        else:
            try:
                x = np.array(samples, dtype=np.float32)
            except (ValueError, TypeError) as error:
                raise DataUnavailable(f"{place} has samples that are neither numbers nor text ({error})") from error
            x = x.reshape(len(samples), -1) if x.ndim < 2 else x
        if not self.reshape:
            return x
        if math.prod(self.reshape) != math.prod(x.shape[1:]):
            raise DataUnavailable(
                f"data.reshape: {list(self.reshape)} has {math.prod(self.reshape)} numbers, and the samples of {place} "
                f"have {math.prod(x.shape[1:])}"
            )
        return x.reshape(-1, *self.reshape)

    def _labels(self, place: str, labels: Sequence[Any]) -> np.ndarray:
        if labels and all(isinstance(label, str) and len(label) == 1 for label in labels):
            return self._indices(place, "".join(labels))
        if not all(isinstance(label, int) for label in labels):
            raise DataUnavailable(f"{place} has labels that are neither whole numbers nor single characters")
        return np.array(labels, dtype=np.int64)

    def _indices(self, place: str, text: str) -> np.ndarray:
        unknown = sorted(set(text) - set(self.alphabet))
        if unknown:
            raise DataUnavailable(f"{place} has the character {unknown[0]!r}, which is not in data.alphabet")
        index = {character: number for number, character in enumerate(self.alphabet)}
        return np.array([index[character] for character in text], dtype=np.int64)


UserData = tuple[list[Any], list[Any]]
"""x and y of one user."""


def read_users(folder: Path, at_most: int | None) -> dict[str, UserData]:
    """The samples of each user who has some, in the order of the files and of the users in them."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataUnavailable(f"data.path: there is no .json file in {folder}")
    found: dict[str, UserData] = {}
    for file in files:
        for user, samples in _users_of(file):
            if user in found:
                raise DataUnavailable(f"data.path: user {user} is in {file} and in a file before it")
            if at_most is not None and len(found) == at_most:
                return found
            if samples[0]:
                found[user] = samples
    if not found:
        raise DataUnavailable(f"data.path: no user in {folder} has a sample")
    return found


def _users_of(file: Path) -> list[tuple[str, UserData]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataUnavailable(f"data.path: {file} is not JSON that can be read") from error
    users = []
    try:
        for user in content["users"]:
            x, y = content["user_data"][user]["x"], content["user_data"][user]["y"]
            if not (isinstance(x, list) and isinstance(y, list) and len(x) == len(y)):
                raise DataUnavailable(f"data.path: {file} does not have as many labels as samples of user {user}")
            users.append((str(user), (x, y)))
    except (KeyError, TypeError) as error:
        raise DataUnavailable(
            f"data.path: {file} is not in LEAF's format: an object with users and user_data, which has x and y of each "
            "user"
        ) from error
    return users


def _has_text(users: Mapping[str, UserData]) -> bool:
    """Whether labels are characters."""
    return isinstance(next(iter(users.values()))[1][0], str)
