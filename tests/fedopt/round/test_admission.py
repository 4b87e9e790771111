"""Which updates are let in, and why the others are not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedopt.algorithms.fedavg import FedAvg
from fedopt.round.admission import examine
from fedopt.round.batchnorm import BatchNorms
from fedopt.round.federation import Broadcast, Numbers, Update
from fedopt.round.plausibility import Bounds
from fedopt.vectors.exact_sum import LARGEST

BROADCAST = Broadcast(round=3, x=torch.zeros(4))
NUMBERS = Numbers(samples=10, steps=5, loss=0.5)
GOOD = Update(3, 1, NUMBERS, up={"dx": torch.ones(4)}, bytes_down=16, bytes_up=16)


def test_a_good_update_is_let_in() -> None:
    assert examine(GOOD, BROADCAST, samples=10) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"round": 2}, "it belongs to round 2, not 3"),
        ({"round": 4}, "it belongs to round 4, not 3"),
        ({"numbers": replace(NUMBERS, samples=9)}, "it reports 9 samples, the client has 10"),
        ({"numbers": replace(NUMBERS, samples=11)}, "it reports 11 samples, the client has 10"),
        ({"numbers": replace(NUMBERS, steps=0)}, "it reports 0 steps"),
        ({"numbers": replace(NUMBERS, loss=math.nan)}, "its loss is nan"),
        ({"numbers": replace(NUMBERS, loss=math.inf)}, "its loss is inf"),
        ({"up": {"dx": torch.ones(1)}}, "dx is torch.float32 (1,), the model torch.float32 (4,)"),
        ({"up": {"dx": torch.ones(4).double()}}, "dx is torch.float64 (4,), the model torch.float32 (4,)"),
        ({"up": {"dx": torch.tensor([0, 0, math.nan, 0])}}, "dx is not finite"),
        ({"up": {"dx": torch.tensor([0, 0, -math.inf, 0])}}, "dx is not finite"),
        ({"up": {"dx": torch.tensor([0, 0, LARGEST, 0])}}, "dx has an entry of 4.29e+09"),
    ],
)
def test_a_bad_one_is_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    refusal = examine(replace(GOOD, **change), BROADCAST, samples=10)
    assert refusal is not None
    assert refusal.reason == reason


def test_hostile_statistics_of_batch_norm_are_refused() -> None:
    """A model of 4 parameters, the scale and shift of a BatchNorm of two, then two means and two variances."""
    norms = BatchNorms.of("average", torch.nn.BatchNorm1d(2), FedAvg())
    bounds, broadcast = Bounds(norms=norms, vectors=("dx",)), Broadcast(round=3, x=torch.ones(8))
    norms_so_far = {"dx": (2.0,), "statistics": (2.0,)}

    def reason(statistics: list[float], dx: float = 1.0) -> str | None:
        update = replace(GOOD, up={"dx": torch.tensor([dx] * 4 + statistics)})
        refusal = examine(update, broadcast, 10, bounds, norms_so_far)
        return None if refusal is None else refusal.reason

    assert reason([-3.0, 0.5, 0.0, 2.0]) is None, "a mean may be negative, and a variance zero"
    assert reason([0.0, 0.0, 1.0, -1e-6]) == "running_var has an entry below zero"
    assert reason([0.0, 0.0, 1.0, math.nan]) == "dx is not finite"
    assert reason([0.0, math.inf, 1.0, 1.0]) == "dx is not finite"
    told = "statistics is 1e+06 long, where at most 2e+03 is plausible (admission.largest_norm)"
    assert reason([0.0, 1e6, 1.0, 1.0]) == told
    assert reason([1e3, 1e3, 1.0, 1.0], dx=1e4) == told.replace("statistics is 1e+06", "dx is 2e+04")
