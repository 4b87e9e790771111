"""What is measured of one round as its updates arrive. It only reads: nothing here can change the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedopt.algorithms.base import DISPLACEMENT
from fedopt.drift.gradients import GRADIENT, measure_gradients
from fedopt.drift.layers import Layers
from fedopt.drift.norms import square_norm
from fedopt.drift.records import Drift, GradientDrift, SecondMomentDrift
from fedopt.drift.updates import UpdateSums
from fedopt.optimizers.moments import SECOND_MOMENTS
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


@dataclass(frozen=True)
class MeasurePlan:
    """What to measure of a round."""

    layers: Layers | None = None
    """Whose updates to measure; None for none."""
    gradients: bool = False
    """Whether clients send full gradients at x."""


NO_MEASURES = MeasurePlan()


@dataclass(frozen=True)
class Measured:
    """The measures of one round."""

    drift: Drift | None = None
    gradients: GradientDrift | None = None
    moments: SecondMomentDrift | None = None


class RoundMeasures:
    """Folds in the updates of one round."""

    def __init__(self, plan: MeasurePlan, x: Tensor) -> None:
        self._updates = UpdateSums(plan.layers, x) if plan.layers is not None else None
        self._x, self._layers = x, plan.layers or Layers.whole(x.numel())
        self._moments: UpdateSums | None = None
        self._moment = ""
        self._gradients = plan.gradients
        self._squares: dict[int, float] = {}
        self._shares: dict[int, float] = {}

    def fold(self, client: int, up: Vectors, share: float) -> None:
        """Takes what a client with this share p_i sent up, [P] each."""
        self._shares[client] = share
        if self._updates is not None and DISPLACEMENT in up:
            self._updates.fold(client, up[DISPLACEMENT], share)
            self._fold_second_moment(client, up, share)
        if self._gradients:
            self._squares[client] = square_norm(up[GRADIENT])

    def _fold_second_moment(self, client: int, up: Vectors, share: float) -> None:
        self._moment = next((name for name in SECOND_MOMENTS if name in up), "")
        if self._moment:
            self._moments = self._moments or UpdateSums(Layers.whole(self._x.numel()), self._x)
            self._moments.fold(client, up[self._moment], share)

    def result(self, totals: Totals) -> Measured:
        needed = (self._updates is not None or self._gradients) and DISPLACEMENT in totals.names()
        d = totals.precise_mean(DISPLACEMENT) if needed else None
        return Measured(
            drift=self._updates.measure(d) if self._updates is not None and d is not None else None,
            gradients=(
                measure_gradients(self._squares, self._shares, totals.precise_mean(GRADIENT), d, self._x, self._layers)
                if self._gradients and d is not None
                else None
            ),
            moments=None if self._moments is None else self._moment_drift(self._moments, totals),
        )

    def _moment_drift(self, sums: UpdateSums, totals: Totals) -> SecondMomentDrift:
        found = sums.measure(totals.precise_mean(self._moment))
        return SecondMomentDrift(ratio=found.ratio, cosine=found.cosine)
