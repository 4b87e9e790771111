"""What the server knows of a round's updates once they are gathered: means and sums over the cohort."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction

from torch import Tensor

from fedopt.vectors.exact_sum import ExactSum


class Totals(ABC):
    """Over the clients whose updates were accepted; p_i is a client's share of the objective of all N clients."""

    share: float
    """sum p_i over these clients, at most 1."""

    @abstractmethod
    def names(self) -> frozenset[str]:
        """The vectors that were sent up."""

    @abstractmethod
    def mean(self, name: str) -> Tensor:
        """sum p_i v_i / sum p_i, [P]; a robust rule puts its own center here."""

    @abstractmethod
    def precise_mean(self, name: str) -> Tensor:
        """`mean` in float64, for measures."""

    @abstractmethod
    def sum(self, name: str) -> Tensor:
        """sum p_i v_i, [P], where the p_i of all N clients add up to 1."""

    @abstractmethod
    def number(self, name: str) -> float:
        """sum p_i n_i / sum p_i over the clients that sent the number."""

    @abstractmethod
    def numbers(self) -> frozenset[str]:
        """The numbers that at least one client sent."""


class NumberSums:
    """Exact weighted sums of scalars: rational arithmetic, so that they do not depend on the order of arrival."""

    def __init__(self) -> None:
        self._sums: dict[str, Fraction] = {}
        self._shares: dict[str, Fraction] = {}

    def fold(self, numbers: Mapping[str, float], share: float) -> None:
        p = Fraction(share)
        for name, number in numbers.items():
            self._sums[name] = self._sums.get(name, Fraction(0)) + p * Fraction(number)
            self._shares[name] = self._shares.get(name, Fraction(0)) + p

    def names(self) -> frozenset[str]:
        return frozenset(self._sums)

    def mean(self, name: str) -> float:
        return float(self._sums[name] / self._shares[name])


class WeightedTotals(Totals):
    """Weighted means and sums, from exact sums of p_i v_i."""

    def __init__(self, sums: Mapping[str, ExactSum], share: float, numbers: NumberSums) -> None:
        self._sums, self.share, self._numbers = sums, share, numbers

    def names(self) -> frozenset[str]:
        return frozenset(self._sums)

    def mean(self, name: str) -> Tensor:
        return self._sums[name].scaled(1.0 / self.share)

    def precise_mean(self, name: str) -> Tensor:
        return self._sums[name].total().div_(self.share)

    def sum(self, name: str) -> Tensor:
        return self._sums[name].scaled(1.0)

    def number(self, name: str) -> float:
        return self._numbers.mean(name)

    def numbers(self) -> frozenset[str]:
        return self._numbers.names()


class ChangedTotals(Totals):
    """Totals in which some means were replaced, by a channel stage that adds noise or rescales them."""

    def __init__(self, totals: Totals, means: Mapping[str, Tensor]) -> None:
        """`means` are [P], by name; their sums follow, and measures go on reading the totals as they were."""
        self._totals, self._means, self.share = totals, means, totals.share

    def names(self) -> frozenset[str]:
        return self._totals.names()

    def mean(self, name: str) -> Tensor:
        return self._means[name] if name in self._means else self._totals.mean(name)

    def precise_mean(self, name: str) -> Tensor:
        return self._totals.precise_mean(name)

    def sum(self, name: str) -> Tensor:
        return self._means[name] * self.share if name in self._means else self._totals.sum(name)

    def number(self, name: str) -> float:
        return self._totals.number(name)

    def numbers(self) -> frozenset[str]:
        return self._totals.numbers()
