"""The weighted mean, streaming and exact: the same bits in any order of arrival, in memory for one model."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from fedopt.round.gathering.base import Collector, Gathering
from fedopt.vectors.exact_sum import ExactSum
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import NumberSums, WeightedTotals


class Mean(Gathering):
    """sum p_i v_i / sum p_i."""

    def collector(self) -> MeanCollector:
        return MeanCollector()


class MeanCollector(Collector):
    """Memory that does not grow with the number of updates and serves all rounds."""

    def __init__(self) -> None:
        self._sums: dict[str, ExactSum] = {}
        self._spare: dict[str, ExactSum] = {}
        self._share = Fraction(0)  # exact, so that it does not depend on the order of arrival
        self._numbers = NumberSums()

    def begin(self) -> None:
        for exact in self._sums.values():
            exact.clear()
        self._spare.update(self._sums)
        self._sums, self._share, self._numbers = {}, Fraction(0), NumberSums()

    def fold(self, client: int, vectors: Vectors, numbers: Mapping[str, float], share: float) -> None:
        for name, vector in vectors.items():
            if name not in self._sums:
                self._sums[name] = self._spare.pop(name) if name in self._spare else ExactSum(vector)
            self._sums[name].add(vector, share)
        self._numbers.fold(numbers, share)
        self._share += Fraction(share)

    def totals(self) -> WeightedTotals:
        assert self._share > 0, "a round without updates has no totals"
        return WeightedTotals(self._sums, float(self._share), self._numbers)
