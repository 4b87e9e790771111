"""Plays as text: the next character after those before it, with speakers as clients (McMahan et al. 2017,
arXiv:1602.05629; in the form of LEAF, Caldas et al. 2018, arXiv:1812.01097).

    First Citizen:
    Before we proceed any further, hear me speak.

    All:
    Speak, speak.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from fedopt.data.dataset import Dataset
from fedopt.data.sources.base import OwnFiles
from fedopt.data.sources.leaf import SPELLED
from fedopt.errors import DataUnavailable


class Shakespeare(OwnFiles):
    names_clients: ClassVar[bool] = True
    holds: ClassVar[str] = "a text file of speeches: NAME and a colon, lines, and an empty line"

    length: int = Field(80, ge=1)
    """Characters of a sample, from which the next one is predicted."""
    stride: int = Field(10, ge=1)
    """Characters from the start of one sample to the start of the next of a speaker; 1 in LEAF."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """The share of each speaker's text that is the test set: the last lines."""

    def load(self, clients: int, seed: int) -> Dataset:
        """Of the `clients` speakers who say most; the file decides which characters there are."""
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataUnavailable(f"data.path: {self.path} is no text file that can be read") from error
        alphabet = sorted(set(text))
        number = np.zeros(1 + max(map(ord, alphabet), default=0), dtype=np.int64)
        number[[ord(character) for character in alphabet]] = np.arange(len(alphabet))
        names: list[str] = []
        train: list[np.ndarray] = []
        test: list[np.ndarray] = []
        for speaker, said in _by_length(speeches(text)):
            known, unknown = (self._samples(number[_codes(part)]) for part in self._split(said))
            if len(names) < clients and len(known) and len(unknown):
                names.append(speaker)
                train.append(known)
                test.append(unknown)
        if len(names) < clients:
            raise DataUnavailable(
                f"data.clients: {self.path.name} has {len(names)} speakers whose training and test lines are longer "
                f"than data.length = {self.length} characters, and {clients} are asked for"
            )
        x_train, y_train, ends = _joined(train)
        x_test, y_test, test_ends = _joined(test)
        return Dataset(
            x_train,
            y_train,
            x_test,
            y_test,
            classes=len(alphabet),
            class_names=tuple(SPELLED.get(character, character) for character in alphabet),
            natural_clients=tuple(np.split(np.arange(len(y_train)), ends[:-1])),
            test_clients=np.repeat(np.arange(clients), np.diff(test_ends, prepend=0)),
            client_names=tuple(names),
        )

    def _split(self, said: str) -> tuple[str, str]:
        """Training and test lines. The cut is after the line in which the training share ends, or before the last."""
        end = said.find("\n", round((1 - self.test_share) * len(said)))
        cut = 1 + (said.rfind("\n") if end < 0 else end)
        return said[:cut], said[cut:]

    def _samples(self, characters: np.ndarray) -> np.ndarray:
        """[n, length + 1]: a sample and the character after it."""
        if len(characters) <= self.length:
            return np.zeros((0, self.length + 1), dtype=np.int64)
        return sliding_window_view(characters, self.length + 1)[:: self.stride]


def speeches(text: str) -> dict[str, str]:
    """Each speaker's lines in the order of the plays, one below the other; a text between speeches is left out."""
    said: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        speaker, colon, lines = block.strip("\n").partition(":\n")
        if colon and "\n" not in speaker:
            said.setdefault(speaker, []).append(lines)
    return {speaker: "\n".join(of_speaker) for speaker, of_speaker in said.items()}


def _by_length(said: Mapping[str, str]) -> list[tuple[str, str]]:
    """The longest first; equally long ones in the order of their names."""
    return sorted(said.items(), key=lambda entry: (-len(entry[1]), entry[0]))


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _joined(parts: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Samples, their next characters, and where each speaker's end."""
    together = np.concatenate(parts)
    samples = torch.from_numpy(together[:, :-1].astype(np.float32))
    return samples, torch.from_numpy(together[:, -1].copy()), np.cumsum([len(part) for part in parts])
