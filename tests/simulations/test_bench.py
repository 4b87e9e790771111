"""The benchmark compares like with like."""

from __future__ import annotations

import pytest
import torch

from simulations.benchmarks.engine import Bench


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_both_sides_of_the_benchmark_come_to_the_same_model(optimizer: str) -> None:
    bench = Bench("logistic", 64, optimizer)
    assert torch.allclose(bench.by_engine(), bench.by_plain_loop(), rtol=1e-4, atol=1e-6)
