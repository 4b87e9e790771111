"""Sizes by a "power law" and few labels a client: the MNIST of FedProx (Li et al. 2020, arXiv:1812.06127, section 5.1).

Client k holds the labels k, k + 1, ..., k + classes - 1 (mod C). With w_kl ~ lognormal(0, sigma^2) it gets

    n_kl = least + (n_l - least h_l) w_kl / sum_k w_kl

of the n_l samples of label l, which has h_l holders. The weights are lognormal, as in the authors' code; the paper
calls the sizes a power law.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from fedopt.data.partitions.base import Partition, TrainingSet
from fedopt.data.partitions.dirichlet import counts_of
from fedopt.errors import PartitionImpossible


class PowerLaw(Partition):
    classes: int = Field(2, ge=1)
    """Labels of each client."""
    sigma: float = Field(2.0, ge=0, le=20)
    """Spread of the sizes: the standard deviation of their weights' logarithms; 0 for equal parts of a label."""
    least: int = Field(5, ge=0)
    """Samples that a client gets of each of its labels before the rest is dealt."""

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        labels, each = np.unique(samples.labels), self.classes
        if each > len(labels):
            raise PartitionImpossible(f"data.classes: {each} a client, but the data have {len(labels)} classes")
        if clients + each - 1 < len(labels):
            raise PartitionImpossible(
                f"data.classes: {clients} clients with {each} consecutive classes leave some of the {len(labels)} "
                f"classes to no one; data.classes = {len(labels) - clients + 1} would work, or {len(labels)} clients"
            )
        held: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for place, label in enumerate(labels):
            of_label = rng.permutation(np.flatnonzero(samples.labels == label))
            holders = np.flatnonzero((place - np.arange(clients)) % len(labels) < each)
            rest = len(of_label) - self.least * len(holders)
            if rest < 0:
                raise PartitionImpossible(
                    f"data.least: {len(holders)} clients hold one of the classes, which has {len(of_label)} samples, "
                    f"too few for {self.least} each; data.least = {len(of_label) // len(holders)} would work"
                )
            counts = self.least + counts_of(rest, self._shares(len(holders), rng))
            for client, part in zip(holders, np.split(of_label, np.cumsum(counts)[:-1]), strict=True):
                held[client].append(part)
        return [np.concatenate(parts) for parts in held]

    def _shares(self, holders: int, rng: np.random.Generator) -> np.ndarray:
        """Of the holders of a label, [holders]; they add up to 1."""
        logarithms = self.sigma * rng.standard_normal(holders)
        weights: np.ndarray = np.exp(logarithms - logarithms.max())
        weights /= weights.sum()
        return weights

    def milder(self) -> Iterator[dict[str, Any]]:
        return ({"sigma": float(f"{self.sigma / 2**k:g}")} for k in range(1, 8))

    @property
    def title(self) -> str:
        return f"{self.name}({self.sigma:g})"

    @property
    def pieces(self) -> int:
        return self.classes
