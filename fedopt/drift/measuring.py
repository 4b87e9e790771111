"""What is measured of one round as its updates pass by. It reads; nothing here can change the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedopt.algorithms.base import DISPLACEMENT
from fedopt.drift.gradients import GRADIENT, measure_gradients, square_norm
from fedopt.drift.layers import Layers
from fedopt.drift.records import Drift, GradientDrift
from fedopt.drift.updates import UpdateSums
from fedopt.round.federation import Update
from fedopt.vectors.exact_sum import Totals


@dataclass(frozen=True)
class Look:
    """What to measure of a round."""

    layers: Layers | None = None
    """Whose updates to measure; None for none."""
    gradients: bool = False
    """Whether clients send full gradients at x."""


NOTHING = Look()


@dataclass(frozen=True)
class Measured:
    """What came of it."""

    drift: Drift | None = None
    gradients: GradientDrift | None = None
    told: Mapping[str, float] = field(default_factory=dict)
    """Weighted means of what the clients told, over those that told it."""


class RoundMeasures:
    """Folds in the updates of one round."""

    def __init__(self, look: Look, x: Tensor) -> None:
        self._updates = UpdateSums(look.layers, x) if look.layers is not None else None
        self._gradients = look.gradients
        self._squares: dict[int, float] = {}
        self._shares: dict[int, float] = {}
        self._told: dict[int, Mapping[str, float]] = {}

    def fold(self, update: Update, share: float) -> None:
        self._shares[update.client], self._told[update.client] = share, update.told
        if self._updates is not None and DISPLACEMENT in update.up:
            self._updates.fold(update.client, update.up[DISPLACEMENT], share)
        if self._gradients:
            self._squares[update.client] = square_norm(update.up[GRADIENT])

    def result(self, totals: Totals) -> Measured:
        needed = (self._updates is not None or self._gradients) and DISPLACEMENT in totals.sums
        d = totals.precise_mean(DISPLACEMENT) if needed else None
        return Measured(
            drift=self._updates.measure(d) if self._updates is not None and d is not None else None,
            gradients=(
                measure_gradients(self._squares, self._shares, totals.precise_mean(GRADIENT), d)
                if self._gradients and d is not None
                else None
            ),
            told=self._mean_told(),
        )

    def _mean_told(self) -> dict[str, float]:
        means: dict[str, float] = {}
        for name in sorted({name for told in self._told.values() for name in told}):
            clients = [client for client in sorted(self._told) if name in self._told[client]]
            total = sum(self._shares[client] for client in clients)
            means[name] = sum(self._shares[client] / total * self._told[client][name] for client in clients)
        return means
