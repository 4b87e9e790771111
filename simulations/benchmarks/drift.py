"""The cost of measuring drift: whole rounds with and without measures, on the same work, in turns, on one thread.

Updates are measured by layer in every round. Full gradients are computed every `metrics.drift_every` rounds; their
cost is that of one such round.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from fedopt.device import threads
from fedopt.drift.measuring import NO_MEASURES, MeasurePlan
from simulations.benchmarks.engine import Bench, seconds_of


@dataclass(frozen=True)
class Cost:
    """Seconds of a round with measures divided by those without: medians over turns, with their range."""

    model: str
    batch: int
    epochs: int
    round_seconds: float
    updates: float
    updates_min: float
    updates_max: float
    gradients: float


def measure_cost(model: str, batch: int, epochs: int, repeats: int) -> Cost:
    bench = Bench(model, batch, "sgd", epochs)
    updates, gradients = MeasurePlan(bench.layers), MeasurePlan(bench.layers, gradients=True)
    with threads(1):
        turns = [
            [seconds_of(lambda plan=plan: bench.by_engine(plan)) for plan in (NO_MEASURES, updates, gradients)]  # type: ignore[misc]
            for _ in range(repeats + 1)
        ][1:]
    ratios = [with_updates / without for without, with_updates, _ in turns]
    return Cost(
        model=model,
        batch=batch,
        epochs=epochs,
        round_seconds=statistics.median(without for without, _, _ in turns),
        updates=statistics.median(ratios),
        updates_min=min(ratios),
        updates_max=max(ratios),
        gradients=statistics.median(with_gradients / without for without, _, with_gradients in turns),
    )
