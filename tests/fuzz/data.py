"""Small data sets of every kind that a module may ask for: vectors, images, sequences, tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["vector", "image", "large image", "sequence", "tokens"]
VOCABULARY = 7
FEATURES = (1, 2, 3, 5, 7, 10, 13, 16, 17, 31, 33, 64)


@dataclass(frozen=True)
class Arrays:
    """What an .npz file of the user's own holds."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.x_train.shape[1:])

    @property
    def classes(self) -> int:
        return int(max(self.y_train.max(), self.y_test.max())) + 1

    def write(self, file: Path) -> None:
        np.savez(file, x_train=self.x_train, y_train=self.y_train, x_test=self.x_test, y_test=self.y_test)


def draw_arrays(rng: np.random.Generator, kind: Kind, least: int, classes: int) -> Arrays:
    """Random inputs whose labels follow a linear rule with noise; `least` training samples or more."""
    shape = _shape(rng, kind)
    train, test = least + int(rng.integers(0, 90)), int(rng.integers(5, 40))
    total = train + test
    dtype = np.float64 if rng.random() < 0.5 else np.float32
    if kind == "tokens":
        x = rng.integers(0, VOCABULARY, (total, *shape)).astype(dtype)
    else:
        scale = float(rng.choice([0.02, 0.2, 1.0, 1.0, 1.0, 3.0]))
        x = (scale * rng.standard_normal((total, *shape))).astype(dtype)
    flat = x.reshape(total, -1).astype(np.float64)
    flat = (flat - flat.mean(0)) / (flat.std(0) + 1e-12)
    scores = flat @ rng.standard_normal((flat.shape[1], classes)) / np.sqrt(flat.shape[1])
    y = (scores + rng.gumbel(0, 0.5, scores.shape)).argmax(1)
    y[:classes] = np.arange(classes)  # no class is absent
    return Arrays(x[:train], y[:train], x[train:], y[train:])


def _shape(rng: np.random.Generator, kind: Kind) -> tuple[int, ...]:
    def some(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    if kind == "vector":
        return (int(rng.choice(FEATURES)),)
    if kind == "image":
        return some(1, 3), some(4, 9), some(4, 9)
    if kind == "large image":
        return some(1, 2), some(16, 18), some(16, 18)
    return (some(2, 5), some(1, 6)) if kind == "sequence" else (some(1, 5),)
