"""FedAvg on quadratics, against its closed forms."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from fedopt.algorithms.base import Weighting
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings
from tests.quadratics import Quadratics, close

LR, STEPS = 0.1, 10
LOCAL = LocalSettings(lr=LR, steps=STEPS, batch_size="full")
ROUNDS = 80
"""Enough for 1e-12: each round of ten steps contracts by a factor of at most (1 - 0.5 LR)^STEPS = 0.6."""
UNEQUAL = (1, 5, 2, 9, 3, 3, 7, 1)


@pytest.mark.parametrize("sizes", [(2,) * 8, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize("server_lr", [1.0, 0.5])
def test_one_round_is_the_mean_of_contractions(sizes: tuple[int, ...], weighting: Weighting, server_lr: float) -> None:
    q = Quadratics.random(8, sizes=sizes)
    algorithm = FedAvg(weighting=weighting, server_lr=server_lr)
    state, _, _ = next(q.play(algorithm, LOCAL, cohort=8))

    moved = q.minimisers + np.einsum("nij,nj->ni", q.contractions(LR, STEPS), q.start - q.minimisers)
    mean = q.weights(weighting) @ moved
    assert close(state.x, q.start + server_lr * (mean - q.start), 1e-14)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_a_partial_cohort_is_weighted_within_itself(weighting: Weighting) -> None:
    q = Quadratics.random(8, sizes=UNEQUAL)
    state, work, _ = next(q.play(FedAvg(weighting=weighting), LOCAL, cohort=3))

    moved = q.minimisers + np.einsum("nij,nj->ni", q.contractions(LR, STEPS), q.start - q.minimisers)
    p = q.weights(weighting)[work.cohort]
    assert len(work.cohort) == 3
    assert close(state.x, (p @ moved[work.cohort]) / p.sum(), 1e-14)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_fixed_point_is_the_biased_one(weighting: Weighting) -> None:
    q = Quadratics.random(8, sizes=UNEQUAL)
    *_, (state, _, _) = islice(q.play(FedAvg(weighting=weighting), LOCAL, cohort=8), ROUNDS)

    p, pull = q.weights(weighting), np.eye(3) - q.contractions(LR, STEPS)
    fixed = np.linalg.solve(np.einsum("n,nij->ij", p, pull), np.einsum("n,nij,nj->i", p, pull, q.minimisers))
    assert close(state.x, fixed, 1e-12)
    assert np.abs(fixed - q.optimum(weighting)).max() > 1e-2


def test_with_one_local_step_the_fixed_point_is_the_optimum() -> None:
    q = Quadratics.random(8, sizes=UNEQUAL)
    local = LocalSettings(lr=0.4, steps=1, batch_size="full")
    *_, (state, _, _) = islice(q.play(FedAvg(), local, cohort=8), ROUNDS)
    assert close(state.x, q.optimum("samples"), 1e-12)


def test_with_equal_curvature_the_fixed_point_is_the_optimum() -> None:
    q = Quadratics.random(8, sizes=UNEQUAL)
    a = np.repeat(q.matrices[:1], 8, axis=0)
    q = Quadratics(a, np.einsum("nij,nj->ni", a, q.minimisers), q.sizes, q.start)
    *_, (state, _, _) = islice(q.play(FedAvg(), LOCAL, cohort=8), ROUNDS)
    assert close(state.x, q.optimum("samples"), 1e-12)
