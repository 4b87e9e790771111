"""The measures of client drift around any Flower Strategy, Flower's own or fedopt's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid, strategy
from torch import Tensor, nn

from fedopt.algorithms.base import DISPLACEMENT
from fedopt.drift.layers import Layers
from fedopt.drift.records import Drift, UpdateDrift
from fedopt.drift.updates import UpdateSums
from fedopt.flower.arrays import Entries, flat
from fedopt.flower.messages import SAMPLES, UP
from fedopt.vectors.exact_sum import ExactSum

PREFIX = "drift."
"""Names of the measures in the strategy's MetricRecord begin with this."""


class MeasureDrift(strategy.Strategy):
    """A strategy that does what another one does, and measures how far its clients' updates lie apart.

    The MetricRecord of each training round (`result.train_metrics_clientapp`) gets drift.norm, drift.mean_norm,
    drift.dispersion, drift.ratio and drift.cosine, which `fedopt list metrics` explains, and with `layers` the same for
    each layer as drift.LAYER.norm and so on. A measure that is undefined in a round is left out.

    Parameters
    ----------
    inner : Strategy
        The strategy to measure. Its clients reply with their trained arrays and `weighted_by`, as Flower's strategies
        want it, or by `Local.reply`.
    model : Optional[nn.Module] (default: None)
        Says which arrays are trained parameters; without it, all arrays of floating-point numbers are measured.
    by : Literal["model", "layers"] (default: "model")
        What is measured: the whole model, or each layer as well.
    weighted_by : Optional[str] (default: "num-examples")
        The metric by which the clients are weighted; None for equal weights.
    """

    def __init__(
        self,
        inner: strategy.Strategy,
        model: nn.Module | None = None,
        by: Literal["model", "layers"] = "model",
        weighted_by: str | None = SAMPLES,
    ) -> None:
        self.inner, self._by, self._weighted_by = inner, by, weighted_by
        self._entries = None if model is None else Entries.of(model)
        self._round: tuple[Entries, Tensor] | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        entries = self._entries or Entries.in_record(arrays)
        entries.check(arrays)
        self._round = (entries, entries.read(arrays))
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        received = list(replies)
        measured = self._measure(received)
        arrays, metrics = self.inner.aggregate_train(server_round, received)
        if measured is None:
            return arrays, metrics
        return arrays, MetricRecord({**(metrics or {}), **_flat(measured)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self.inner.summary()

    def _measure(self, replies: list[Message]) -> Drift | None:
        """None if no reply can be measured."""
        if self._round is None:
            return None
        entries, x = self._round
        updates = [(self._weight(reply), _update(reply, entries, x)) for reply in replies if reply.has_content()]
        updates = [(weight, update) for weight, update in updates if weight > 0 and bool(update.isfinite().all())]
        if not updates:
            return None
        layers = Layers.of(entries.layout) if self._by == "layers" else Layers.whole(len(x))
        sums, mean = UpdateSums(layers, x), ExactSum(x)
        total = sum(weight for weight, _ in updates)
        for client, (weight, update) in enumerate(updates):
            sums.fold(client, update, weight / total)
            mean.add(update, weight / total)
        return sums.measure(mean.total())

    def _weight(self, reply: Message) -> float:
        if self._weighted_by is None:
            return 1.0
        records = reply.content.metric_records
        values = [record[self._weighted_by] for record in records.values() if self._weighted_by in record]
        return float(values[0]) if values and isinstance(values[0], int | float) else 0.0


def _update(reply: Message, entries: Entries, x: Tensor) -> Tensor:
    """y - x, [P]."""
    records = reply.content.array_records
    if UP in records and DISPLACEMENT in records[UP]:
        return flat(records[UP], [DISPLACEMENT])
    return entries.read(next(iter(records.values()))) - x


def _flat(drift: Drift) -> dict[str, float]:
    found = dict(_named(drift, PREFIX))
    for layer, measures in drift.layers.items():
        found |= _named(measures, f"{PREFIX}{layer}.")
    return found


def _named(measures: UpdateDrift, prefix: str) -> Iterator[tuple[str, float]]:
    for name in UpdateDrift.model_fields:
        value = getattr(measures, name)
        if value is not None:
            yield prefix + name, value
