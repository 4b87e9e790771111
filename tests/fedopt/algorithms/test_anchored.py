"""The anchor of SCAFFOLD: the same optimum, the update rule, and no runaway where the paper's algorithm has one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import fedopt
from fedopt import Experiment
from fedopt.algorithms.anchored import anchor_weight
from fedopt.algorithms.base import Weighting
from fedopt.algorithms.scaffold import Scaffold
from fedopt.errors import Diverged
from fedopt.optimizers.local import LocalSettings
from fedopt.round.loop import RoundWork
from fedopt.round.selection import select_cohort
from fedopt.round.state import ServerState
from simulations.virtual import VirtualFederation
from tests.quadratics import Array, Quadratics, close

LR, STEPS = 0.02, 10
SGD = LocalSettings(lr=LR, steps=STEPS, batch_size="full")
MOMENTUM = LocalSettings(lr=LR, steps=STEPS, batch_size="full", momentum=0.9)
NESTEROV = LocalSettings(lr=LR, steps=STEPS, batch_size="full", momentum=0.9, nesterov=True)
LOCAL = {"sgd": SGD, "momentum": MOMENTUM, "nesterov": NESTEROV}
SIZES = (1, 3, 5, 2, 4, 1, 3, 5)
ALWAYS = {("momentum", 2, "samples")}

OPTIMA = [
    pytest.param(name, cohort, weighting, marks=[] if (name, cohort, weighting) in ALWAYS else [pytest.mark.slow])
    for name in LOCAL
    for cohort in (8, 2, 1)
    for weighting in ("samples", "uniform")
]


@pytest.mark.parametrize(("name", "cohort", "weighting"), OPTIMA)
def test_scaffold_with_an_anchor_reaches_the_exact_optimum(name: str, cohort: int, weighting: Weighting) -> None:
    q = Quadratics.random(8, sizes=SIZES)
    optimum = q.optimum(weighting)
    rounds = q.play(Scaffold(anchor=1.0, weighting=weighting), LOCAL[name], cohort)
    there = 0
    for state, _, _ in islice(rounds, 2000):
        there = there + 1 if close(state.x, optimum, 1e-10) else 0
        if there == 10:
            break
    assert there == 10


def anchored_scaffold(q: Quadratics, cohort_size: int, anchor: float, momentum: float) -> Iterator[tuple[Array, Array]]:
    """(x, c) after each round in plain numpy; client i takes 2 n_i steps."""
    clients, p = len(q.sizes), q.weights("samples")
    x, c, c_i = q.start.copy(), np.zeros(3), np.zeros((clients, 3))
    for round_ in range(1, 10**9):
        cohort = select_cohort(clients, cohort_size, seed=0, round_=round_)
        dx, dc = np.zeros(3), np.zeros(3)
        for i in cohort:
            steps = 2 * q.sizes[i]
            mu = min(anchor / (steps * LR), 1 / LR)
            y, v, gradients = x.copy(), np.zeros(3), np.zeros(3)
            for _ in range(steps):
                g = q.matrices[i] @ y - q.vectors[i]
                v = momentum * v + g - c_i[i] + c + mu * (y - x)
                y, gradients = y - LR * v, gradients + g
            new = gradients / steps
            dx, dc = dx + p[i] * (y - x), dc + p[i] * (new - c_i[i])
            c_i[i] = new
        x, c = x + dx / p[cohort].sum(), c + dc
        yield x, c


@pytest.mark.parametrize("anchor", [0.5, 3.0], ids=["below the bound", "at the bound of a client with two steps"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_rule_is_that_of_a_plain_loop(anchor: float, momentum: float) -> None:
    q = Quadratics.random(8, sizes=SIZES)
    local = LocalSettings(lr=LR, epochs=2, batch_size=1, momentum=momentum)
    expected = anchored_scaffold(q, 3, anchor, momentum)
    for (state, _, _), (x, c) in islice(zip(q.play(Scaffold(anchor=anchor), local, 3), expected, strict=False), 20):
        assert close(state.x, x, 1e-11)
        assert close(state.server["c"], c, 1e-11)


def test_the_weight_is_in_units_of_the_sum_of_the_rates_and_never_beyond_one_over_the_largest() -> None:
    assert anchor_weight(2.0, [0.1, 0.2, 0.3, 0.4]) == pytest.approx(2.0)
    assert anchor_weight(8.0, [0.1, 0.2, 0.3, 0.4]) == pytest.approx(2.5)
    assert anchor_weight(1.0, [0.0]) == 0.0


def flat_and_steep(anchor: float) -> Iterator[tuple[ServerState, RoundWork, VirtualFederation]]:
    """f_1 = 0 and f_2 = A y^2 / 2: client 1 moves by -c K lr / (1 - momentum), as if its loss would fall forever.

    Clients that have reached their minima give x+ = x / 2 + (1 - T A) x_before / 4 with T = K lr / (1 - momentum),
    here about 31 after the start of the momentum: |x| grows by a factor of 2.7 a round. With the anchor and
    s = K lr A = 4 it is x+ = x (2 + s) / (2 + 2 s) - x_before s^2 / (4 + 4 s), which shrinks.
    """
    q = Quadratics(np.array([[[0.0]], [[2.0]]]), np.zeros((2, 1)), (1, 1), np.ones(1))
    local = LocalSettings(lr=0.05, steps=40, batch_size="full", momentum=0.9)
    return islice(q.play(Scaffold(anchor=anchor, variant="full-gradient"), local, 2), 12)


def test_scaffold_runs_away_where_a_client_does_not_resist() -> None:
    with pytest.raises(Diverged, match="round 4 went wrong at client 0"):
        list(flat_and_steep(0.0))


def test_an_anchor_holds_a_client_that_does_not_resist() -> None:
    state, _, _ = list(flat_and_steep(1.0))[-1]
    assert abs(float(state.x)) < 1e-2


@pytest.mark.parametrize(("anchor", "runs_away"), [(0.0, True), (1.0, False)])
def test_an_anchor_keeps_a_network_from_running_away(anchor: float, runs_away: bool, tmp_path: Path) -> None:
    experiment = Experiment(
        algorithm=Scaffold(anchor=anchor, variant="full-gradient"),
        data={"clients": 20, "partition": "dirichlet-balanced", "alpha": 0.1},
        model={"name": "mlp", "hidden": [30]},
        local={"lr": 0.02, "momentum": 0.9, "steps": 50},
        metrics={"drift_every": 100, "clients_every": 0},
        run={"rounds": 10, "participation": 0.2, "seed": 1, "eval_every": 100, "workers": 1},
    )
    lengths = [record.drift.mean_norm for record in fedopt.run(experiment, tmp_path / "run").records if record.drift]
    assert max(lengths) > 40 if runs_away else max(lengths) < 15
