"""A share of each client's samples is iid, the rest sorted by label: the s% similarity in the experiments of SCAFFOLD
(Karimireddy et al. 2020, arXiv:1910.06378, section 7), after Hsu, Qi, Brown 2019, arXiv:1909.06335."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from fedopt.data.partitions.base import Partition, TrainingSet


class Similarity(Partition):
    """Sizes differ by one at most, as those of iid."""

    takes_numbers: ClassVar[bool] = True

    similarity: float = Field(0.1, ge=0, le=1)
    """The share of the samples that is iid: 1 is the partition iid, 0 gives each client a stretch of sorted labels."""

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        order = rng.permutation(len(samples.labels))
        alike = round(self.similarity * len(order))
        rest = order[alike:]
        by_label = rest[np.argsort(samples.labels[rest], kind="stable")]  # within a label at random
        ends = _ends(len(order), clients) - _ends(alike, clients)
        parts = zip(np.array_split(order[:alike], clients), np.split(by_label, ends[:-1]), strict=True)
        return [np.concatenate(pair) for pair in parts]

    @property
    def title(self) -> str:
        return f"{self.name}({self.similarity:g})"


def _ends(samples: int, clients: int) -> np.ndarray:
    """Where each of `clients` equal parts of so many samples ends, [clients]; the first parts are the larger ones."""
    parts = np.arange(1, clients + 1)
    ends: np.ndarray = parts * (samples // clients) + np.minimum(parts, samples % clients)
    return ends
