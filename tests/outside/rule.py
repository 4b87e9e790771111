"""The coordinate-wise median of all updates of a round, which it holds until the last has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fedopt.round.gathering.base import Collector, Gathering
from fedopt.vectors.exact_sum import ExactSum
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import ChangedTotals, NumberSums, Totals, WeightedTotals


class Median(Gathering):
    holds_updates: ClassVar[bool] = True

    def collector(self) -> MedianCollector:
        return MedianCollector()


class MedianCollector(Collector):
    def begin(self) -> None:
        self._vectors: dict[str, dict[int, Tensor]] = {}
        self._shares: dict[int, float] = {}
        self._numbers = NumberSums()

    def fold(self, client: int, vectors: Vectors, numbers: Mapping[str, float], share: float) -> None:
        for name, vector in vectors.items():
            self._vectors.setdefault(name, {})[client] = vector.clone()
        self._shares[client] = share
        self._numbers.fold(numbers, share)

    def totals(self) -> Totals:
        sums: dict[str, ExactSum] = {}
        for name, by_client in self._vectors.items():
            sums[name] = ExactSum(next(iter(by_client.values())))
            for client in sorted(by_client):
                sums[name].add(by_client[client], self._shares[client])
        mean = WeightedTotals(sums, sum(self._shares[client] for client in sorted(self._shares)), self._numbers)
        medians = {
            name: torch.stack([by_client[client] for client in sorted(by_client)]).median(0).values
            for name, by_client in self._vectors.items()
        }
        return ChangedTotals(mean, medians)
