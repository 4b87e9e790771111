"""SCAFFOLD on quadratics: exact optima, the paper's own formula, and the invariant of the controls."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from clients.lanes.backends import Backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms.base import Weighting
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.data.batches import plan_batches
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.round.selection import select_cohort
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.benchmarks.plain_loop import batches_of
from tests.quadratics import Array, Quadratics, close

LR, STEPS = 0.02, 10
SGD = LocalSettings(lr=LR, steps=STEPS, batch_size="full")
MOMENTUM = LocalSettings(lr=LR, steps=STEPS, batch_size="full", momentum=0.9)
NESTEROV = LocalSettings(lr=LR, steps=STEPS, batch_size="full", momentum=0.9, nesterov=True)


def sizes(clients: int, kind: str) -> tuple[int, ...]:
    return tuple(1 + (7 * i) % 5 for i in range(clients)) if kind == "unequal" else (2,) * clients


LOCAL = {"sgd": SGD, "momentum": MOMENTUM, "nesterov": NESTEROV}

SLOW = [pytest.mark.slow]
ALWAYS = {("sgd", 8, 1, "unequal", "samples"), ("momentum", 8, 2, "unequal", "samples")}
ALWAYS |= {("sgd", 8, 2, "unequal", "uniform")}

SETTINGS = [
    pytest.param(
        LOCAL[name],
        clients,
        cohort,
        kind,
        weighting,
        id=f"{weighting}-{kind}-{clients}-{cohort}-{name}",
        # Each takes seconds: all are in `make test-slow`, and one of each kind always. With equal sizes both weightings
        # are the same.
        marks=[] if (name, clients, cohort, kind, weighting) in ALWAYS else SLOW,
    )
    for name in LOCAL
    for clients, cohort in [(8, 8), (8, 2), (8, 1), (100, 10)]
    for kind in ("equal", "unequal")
    for weighting in ("samples", "uniform")
]


@pytest.mark.parametrize(("local", "clients", "cohort", "kind", "weighting"), SETTINGS)
def test_reaches_the_exact_optimum(
    local: LocalSettings, clients: int, cohort: int, kind: str, weighting: Weighting
) -> None:
    q = Quadratics.random(clients, sizes=sizes(clients, kind))
    optimum = q.optimum(weighting)
    backend: Backend = "vmap" if cohort == 10 else "each"
    rounds = q.play(Scaffold(weighting=weighting), local, cohort, backend=backend)
    there = 0
    for state, _, _ in islice(rounds, 6000):  # momentum swings through the optimum before it settles there
        there = there + 1 if close(state.x, optimum, 1e-10) else 0
        if there == 10:
            break
    assert there == 10


@pytest.mark.parametrize("cohort", [8, 2])
def test_full_gradient_variant_reaches_the_exact_optimum(cohort: int) -> None:
    q = Quadratics.random(8, sizes=sizes(8, "unequal"))
    rounds = q.play(Scaffold(variant="full-gradient"), MOMENTUM, cohort)
    optimum = q.optimum("samples")
    assert any(close(state.x, optimum, 1e-10) for state, _, _ in islice(rounds, 4000))


@pytest.mark.parametrize("local", [SGD, MOMENTUM], ids=["sgd", "momentum"])
def test_first_round_is_that_of_fedavg(local: LocalSettings) -> None:
    q = Quadratics.random(8, sizes=sizes(8, "unequal"))
    scaffold, _, _ = next(q.play(Scaffold(), local, cohort=3))
    fedavg, _, _ = next(q.play(FedAvg(), local, cohort=3))
    if local is SGD:  # SCAFFOLD adds up plain steps apart from x, to more digits than x has
        assert close(scaffold.x, fedavg.x.numpy(), 1e-15)
    else:
        assert scaffold.x.equal(fedavg.x)


def option_two(
    q: Quadratics, cohort_size: int, weighting: Weighting, server_lr: float
) -> Iterator[tuple[Array, Array]]:
    """(x, c) after each round of the paper's Algorithm 1 with option II, in plain numpy."""
    clients, p = len(q.sizes), q.weights(weighting)
    x, c, c_i = q.start.copy(), np.zeros(3), np.zeros((clients, 3))
    for round_ in range(1, 10**9):
        cohort = select_cohort(clients, cohort_size, seed=0, round_=round_)
        dx, dc = np.zeros(3), np.zeros(3)
        for i in cohort:
            y = x.copy()
            for _ in range(STEPS):
                y = y - LR * (q.matrices[i] @ y - q.vectors[i] - c_i[i] + c)
            new = c_i[i] - c + (x - y) / (STEPS * LR)
            dx, dc = dx + p[i] * (y - x), dc + p[i] * (new - c_i[i])
            c_i[i] = new
        x, c = x + server_lr * dx / p[cohort].sum(), c + dc
        yield x, c


@pytest.mark.parametrize("cohort", [8, 3, 1])
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize("server_lr", [1.0, 0.7])
def test_under_sgd_it_is_the_papers_option_two(cohort: int, weighting: Weighting, server_lr: float) -> None:
    q = Quadratics.random(8, sizes=sizes(8, "unequal"))
    rounds = q.play(Scaffold(weighting=weighting, server_lr=server_lr), SGD, cohort)
    for (state, _, _), (x, c) in islice(zip(rounds, option_two(q, cohort, weighting, server_lr), strict=False), 40):
        assert close(state.x, x, 1e-11)
        assert close(state.server["c"], c, 1e-11)


@pytest.mark.parametrize("variant", ["mean-gradient", "full-gradient"])
@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_the_server_control_is_the_weighted_mean_of_all_controls(
    variant: Literal["mean-gradient", "full-gradient"], weighting: Weighting
) -> None:
    q = Quadratics.random(8, sizes=sizes(8, "unequal"))
    p = q.weights(weighting)
    algorithm = Scaffold(variant=variant, weighting=weighting)
    for state, _, federation in islice(q.play(algorithm, MOMENTUM, cohort=3), 60):
        controls = np.stack([federation.states.at(i, state.accepted.get(i))["c_i"].numpy() for i in range(8)])
        assert close(state.server["c"], p @ controls, 1e-12)


def test_the_full_gradient_control_is_the_gradient_at_x() -> None:
    q = Quadratics.random(8, sizes=sizes(8, "unequal"))
    state, work, federation = next(q.play(Scaffold(variant="full-gradient"), MOMENTUM, cohort=3))
    for i in work.cohort:
        control = federation.states.at(i, state.accepted[i])["c_i"]
        assert close(control, q.matrices[i] @ q.start - q.vectors[i], 1e-14)


def test_clipping_leaves_the_control_the_mean_of_raw_gradients() -> None:
    q = Quadratics.random(4)
    local = LocalSettings(lr=LR, steps=2, batch_size="full", clip=0.1)
    state, _, federation = next(q.play(Scaffold(), local, cohort=4))
    for i in range(4):
        first = q.matrices[i] @ q.start - q.vectors[i]
        clipped = first * min(1.0, 0.1 / (np.linalg.norm(first) + 1e-6))
        second = q.matrices[i] @ (q.start - LR * clipped) - q.vectors[i]
        assert close(federation.states.at(i, state.accepted[i])["c_i"], (first + second) / 2, 1e-14)


@pytest.mark.parametrize("backend", ["stacked", "each", "vmap"])
@pytest.mark.parametrize(("sharpness", "lr"), [(7.0, 1e-3), (7.0, 1e-5), (9.5, 1e-3), (1.0, 0.1)])
def test_a_control_is_the_mean_gradient_close_to_the_minimum_too(backend: Backend, sharpness: float, lr: float) -> None:
    """In float32 a step near convergence is a few units in the last place of the parameters.

    The mean of the raw gradients comes from a loop in float64, at losses of 7e-4 and 7e-5.
    """
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(np.arange(60) % 3)
    samples = torch.eye(3, dtype=torch.float64)[labels] + 0.05 * torch.from_numpy(rng.standard_normal((60, 3)))
    exact = nn.Sequential(nn.Linear(3, 3, bias=False)).double()
    weight = exact.get_parameter("0.weight")
    with torch.no_grad():
        weight.copy_(sharpness * torch.eye(3).double() + 0.1 * torch.from_numpy(rng.standard_normal((3, 3))))
    single = copy.deepcopy(exact).float()
    start = Layout.of(single).flatten(single)
    weight.data = start.double().view(3, 3)
    local = LocalSettings(lr=lr, epochs=2, batch_size=10)
    zero = torch.zeros(9)
    # A client far from the others: c - c_i is as long as the gradients of another place.
    down, own = {"c": zero}, {"c_i": 0.01 * torch.from_numpy(rng.standard_normal(9)).float()}
    data = samples.float(), labels
    trainer = LaneTrainer(LocalTraining(Task(single), Scaffold(), local, 1), data, Execution(backend, 1))
    (result,) = trainer.train(Broadcast(1, start, down), [Job(WorkOrder(0, 1), np.arange(60), own)])

    plan = plan_batches(60, local, stream(1, Purpose.BATCHES, 1, 0))
    raw = torch.zeros(9, dtype=torch.float64)
    for batch in batches_of(plan, np.arange(60)):
        loss = functional.cross_entropy(exact(data[0].double()[batch]), labels[batch])
        (gradient,) = torch.autograd.grad(loss, [weight])
        raw += gradient.reshape(-1)
        with torch.no_grad():
            weight.sub_(lr * (gradient - own["c_i"].double().view(3, 3)))
    mean = raw / plan.steps
    assert float((result.state["c_i"].double() - mean).norm() / mean.norm()) < 0.005
