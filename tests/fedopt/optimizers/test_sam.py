"""SAM: the dual-norm identities of its ascent step, and one whole step on a quadratic."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sam import ascent
from tests.quadratics import Quadratics, close

gradients = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-1e6, 1e6).map(lambda value: value if abs(value) > 1e-6 else 0.0),
)


@settings(deadline=None)
@given(gradients, st.sampled_from([1.0, 1.25, 1.5, 2.0, 3.0, 8.0, math.inf]), st.floats(1e-3, 10.0))
def test_the_ascent_step_is_the_worst_point_of_the_ball(gradient: np.ndarray, p: float, rho: float) -> None:
    q = math.inf if p == 1 else 1.0 if math.isinf(p) else p / (p - 1)
    steps = ascent(torch.from_numpy(gradient), rho, p).numpy()
    for g, eps in zip(gradient, steps, strict=True):
        if not g.any():
            assert not eps.any()
            continue
        assert np.linalg.norm(eps, p) <= rho * (1 + 1e-9)
        if not math.isinf(p):  # in the max norm, entries without gradient stay where they are
            assert np.linalg.norm(eps, p) == pytest.approx(rho, rel=1e-9)
        assert eps @ g == pytest.approx(rho * np.linalg.norm(g, q), rel=1e-9)


def test_a_lane_is_not_touched_by_its_neighbours() -> None:
    both = torch.tensor([[3.0, 4.0], [0.0, 1e-30]], dtype=torch.float64)
    assert ascent(both, 0.5, 2.0).equal(torch.cat([ascent(both[:1], 0.5, 2.0), ascent(both[1:], 0.5, 2.0)]))


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.5])
def test_on_a_quadratic_the_step_takes_g_plus_rho_a_g_over_norm(rho: float) -> None:
    q = Quadratics.random(6)
    local = LocalSettings(optimizer="sam", rho=rho, lr=0.1, steps=1, batch_size="full")
    state, _, _ = next(q.play(FedAvg(), local, cohort=6))

    g = np.einsum("nij,j->ni", q.matrices, q.start) - q.vectors
    seen = g + rho * np.einsum("nij,nj->ni", q.matrices, g) / np.linalg.norm(g, axis=1, keepdims=True)
    assert close(state.x, q.start - 0.1 * seen.mean(axis=0), 1e-14)


def test_under_scaffold_both_gradients_are_corrected_and_the_control_is_the_raw_second_one() -> None:
    """Two rounds by hand, one step each: lr 0.1, rho 0.3, all clients."""
    q, rho, lr = Quadratics.random(4), 0.3, 0.1
    local = LocalSettings(optimizer="sam", rho=rho, lr=lr, steps=1, batch_size="full")
    rounds = q.play(Scaffold(), local, cohort=4)
    x, c, c_i = q.start, np.zeros(3), np.zeros((4, 3))
    for _ in range(2):
        state, _, _ = next(rounds)
        g = np.einsum("nij,j->ni", q.matrices, x) - q.vectors - c_i + c
        eps = rho * g / np.linalg.norm(g, axis=1, keepdims=True)
        raw = np.einsum("nij,nj->ni", q.matrices, x + eps) - q.vectors
        x, c, c_i = x - lr * (raw - c_i + c).mean(axis=0), raw.mean(axis=0), raw
        assert close(state.x, x, 1e-13)
        assert close(state.server["c"], c, 1e-13)


@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()])
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_the_training_loss_is_that_of_the_model_and_not_of_the_worst_point(
    algorithm: Algorithm, base: Literal["sgd", "adam"]
) -> None:
    q = Quadratics.random(4)
    local = LocalSettings(optimizer="sam", base=base, rho=1.0, lr=0.1, steps=1, batch_size="full")
    _, work, _ = next(q.play(algorithm, local, cohort=4))
    losses = 0.5 * np.einsum("i,nij,j->n", q.start, q.matrices, q.start) - q.vectors @ q.start
    assert work.train_loss == pytest.approx(losses.mean(), rel=1e-12)
