"""The benchmarks compare like with like."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch

from simulations.benchmarks import store
from simulations.benchmarks.engine import Bench


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_both_sides_of_the_benchmark_come_to_the_same_model(optimizer: str) -> None:
    with closing(Bench("logistic", 64, optimizer)) as bench:
        assert torch.allclose(bench.by_engine(), bench.by_plain_loop(), rtol=1e-4, atol=1e-6)


def test_controls_on_the_disk_and_in_memory_are_measured_on_the_same_work() -> None:
    found = store.measure(clients=4, cohort=2, samples=10, rounds=2)
    assert found.parameters == 784 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10
    assert 0 < found.ratio_min <= found.ratio <= found.ratio_max
    assert min(found.in_memory, found.on_disk) > 0
