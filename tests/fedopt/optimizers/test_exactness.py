"""Which optimizers reach the exact optimum under SCAFFOLD, at a constant rate on full batches.

At the optimum every corrected gradient is zero, so an optimizer stays there if its steps shrink with the gradient.
Those that divide by the gradient's size do so only with an `eps` above it: moments start at zero in each round, and the
first step is lr sign(g) otherwise. Lion, lars, larc with mode = "scale" and muon take steps whose size does not depend
on the gradient, and stop nowhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedopt.algorithms.fedprox import FedProx
from fedopt.algorithms.scaffold import Scaffold
from fedopt.optimizers.local import LocalSettings
from tests.quadratics import Quadratics, close

NESTEROV = {"momentum": 0.5, "nesterov": True, "nesterov_form": "look-ahead"}

EXACT: dict[str, dict[str, Any]] = {
    "sgd-dampening": {"momentum": 0.5, "dampening": 0.5, "lr": 0.5},
    "nesterov-look-ahead": {**NESTEROV, "lr": 0.2},
    "averaged-gradient": {"optimizer": "averaged-gradient", "beta": 0.5, "lr": 0.6},
    "asgd": {"optimizer": "asgd", "lr": 0.5},
    "adagrad": {"optimizer": "adagrad", "eps": 2.0, "lr": 1.0},
    "rmsprop": {"optimizer": "rmsprop", "eps": 2.0, "lr": 1.0},
    "rmsprop-centered": {"optimizer": "rmsprop", "centered": True, "momentum": 0.3, "eps": 2.0, "lr": 0.6},
    "adam": {"optimizer": "adam", "eps": 2.0, "lr": 0.8},
    "adam-uncorrected": {"optimizer": "adam", "bias_correction": False, "betas": (0.5, 0.9), "eps": 2.0, "lr": 1.0},
    "nadam": {"optimizer": "nadam", "eps": 2.0, "lr": 0.8},
    "radam": {"optimizer": "radam", "lr": 0.4},
    "lookahead": {"optimizer": "lookahead", "sync_period": 2, "lr": 0.5},
    "larc-clip": {"optimizer": "larc", "trust": 0.5, "lr": 0.4},
    "sag": {"optimizer": "sag", "batch_size": 1, "lr": 0.3},
    "saga": {"optimizer": "saga", "batch_size": 1, "lr": 0.3},
    "newton": {"optimizer": "newton", "damping": 0.5, "lr": 0.5},
    "lbfgs": {"optimizer": "lbfgs", "lr": 0.3},
}
INEXACT: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "lr": 0.05},
    "adagrad": {"optimizer": "adagrad", "lr": 0.05},
    "lion": {"optimizer": "lion", "lr": 0.05},
    "lars": {"optimizer": "lars", "lr": 1.0, "trust": 0.01},
    "larc-scale": {"optimizer": "larc", "mode": "scale", "trust": 0.1, "lr": 0.1},
}
QUICK = ("nesterov-look-ahead", "asgd", "larc-clip", "lbfgs", "lion")


def error_after(rounds: int, keys: dict[str, Any]) -> float:
    """The distance from the optimum, relative to its largest entry."""
    q = Quadratics.random(3)
    local = LocalSettings(**{"steps": 2, "batch_size": "full", **keys})
    played = q.play(Scaffold(), local, cohort=3)
    for _ in range(rounds):
        state, _, _ = next(played)
    optimum = q.optimum("samples")
    return float(np.abs(state.x.numpy() - optimum).max() / np.abs(optimum).max())


def marked(cases: dict[str, dict[str, Any]]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in cases]


@pytest.mark.parametrize("name", marked(EXACT))
def test_under_scaffold_it_reaches_the_optimum(name: str) -> None:
    assert error_after(80, EXACT[name]) < 1e-9


@pytest.mark.parametrize("name", marked(INEXACT))
def test_at_a_constant_rate_it_does_not(name: str) -> None:
    assert error_after(150, INEXACT[name]) > 1e-3


def test_newton_solves_with_what_algorithm_and_penalty_add_to_the_gradient() -> None:
    """One step of rate 1 without damping goes to the minimum of f_i + mu/2 |y - x|^2 + l2/2 |y|^2."""
    q, mu, l2 = Quadratics.random(3), 0.7, 0.2
    local = LocalSettings(optimizer="newton", damping=0.0, lr=1.0, steps=1, batch_size="full", l2=l2)
    state, _, _ = next(q.play(FedProx(mu=mu), local, cohort=3))
    shifted = q.matrices + (mu + l2) * np.eye(3)
    minima = np.linalg.solve(shifted, (q.vectors + mu * q.start)[..., None])[..., 0]
    assert close(state.x, minima.mean(axis=0), 1e-13)
