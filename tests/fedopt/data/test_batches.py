"""Which samples a client sees in which step."""

from __future__ import annotations

import numpy as np
import pytest

from fedopt.data.batches import plan_batches
from fedopt.optimizers.local import LocalSettings


@pytest.mark.parametrize("samples", [5, 20, 21])
def test_each_epoch_sees_every_sample_once_in_a_random_order_of_its_own(samples: int) -> None:
    epochs, width = 4, 7
    local = LocalSettings(epochs=epochs, batch_size=width)
    plan = plan_batches(samples, local, np.random.default_rng(0))
    per_epoch = -(-samples // width)
    assert plan.steps == epochs * per_epoch
    assert plan.counts.tolist() == [*[width] * (per_epoch - 1), samples - width * (per_epoch - 1)] * epochs
    rows = [row[:count] for row, count in zip(plan.positions, plan.counts, strict=True)]
    orders = [np.concatenate(rows[first : first + per_epoch]) for first in range(0, plan.steps, per_epoch)]
    assert all(sorted(order) == list(range(samples)) for order in orders)
    assert len({tuple(order) for order in orders}) == epochs  # two alike: once in 5! = 120 pairs, not with this seed
    assert all(tuple(order) != tuple(range(samples)) for order in orders)
