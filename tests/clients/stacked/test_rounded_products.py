"""Training with operands rounded to tf32 or bf16."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import fedopt
from clients.lanes.backends import Backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from clients.stacked.products import plain_product, product, rounding
from fedopt.algorithms.fedavg import FedAvg
from fedopt.data.batches import plan_batches
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.optimizers.local import LocalSettings
from fedopt.precision import ROUND_OFF, Products, rounded
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.benchmarks.plain_loop import batches_of
from tests.clients.stacked.test_products import factors, sizes

kinds: st.SearchStrategy[Products] = st.sampled_from(["tf32", "bf16"])
SIZES = (40, 33, 7)
LOCAL = LocalSettings(lr=0.1, epochs=2, batch_size=8)


@given(st.integers(1, 3), sizes, sizes, sizes, st.booleans(), kinds)
def test_a_product_is_off_by_no_more_than_is_stated(
    lanes: int, rows: int, inner: int, columns: int, turned: bool, kind: Products
) -> None:
    a, b = factors(lanes, rows, inner, columns, turned, torch.float32)
    into, again = torch.full((lanes, rows, columns), torch.nan), torch.zeros(lanes, rows, columns)
    with rounding(kind):
        product(into, a, b)
        plain_product(again, a, b)()
    exact, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    u, sums = ROUND_OFF[kind], inner * 2.0**-23
    assert bool(((into - exact).abs() <= (2 * u + u * u + sums) * size).all())
    assert torch.equal(into, again)


def test_products_are_rounded_only_within() -> None:
    a, b = factors(1, 20, 30, 20, False, torch.float32)
    full, within = torch.zeros(1, 20, 20), torch.zeros(1, 20, 20)
    product(full, a, b)
    with rounding("bf16"):
        product(within, a, b)
    size = a.abs() @ b.abs()
    assert ((full - within).abs() / size).max() > 1e-4


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 5))


def samples() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((sum(SIZES), 1, 3, 4)).astype("float32"))
    return x, torch.from_numpy(rng.integers(0, 5, sum(SIZES)))


def train(
    backend: Backend, kind: Products, clients: tuple[int, ...], local: LocalSettings = LOCAL
) -> dict[int, Tensor]:
    """Where one round leads these clients, [P]."""
    x, y = samples()
    ends = np.cumsum(SIZES)
    parts = [np.arange(end - size, end) for end, size in zip(ends, SIZES, strict=True)]
    module = network()
    layout = Layout.of(module)
    start = layout.flatten(module)
    trainer = LaneTrainer(
        LocalTraining(Task(module), FedAvg(), local, 0), (x, y), Execution(backend, len(clients), kind)
    )
    results = trainer.train(Broadcast(1, start), [Job(WorkOrder(c, None), parts[c], {}) for c in clients])
    return {result.order.client: start + result.up["dx"] for result in results}


def train_plainly(kind: Products, client: int, local: LocalSettings) -> Tensor:
    """The same by autograd, whose every product rounds its operands by itself."""

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(context: torch.autograd.function.FunctionCtx, x: Tensor, w: Tensor) -> Tensor:
            context.save_for_backward(x, w)
            return rounded(x, kind) @ rounded(w, kind).T

        @staticmethod
        def backward(context: torch.autograd.function.FunctionCtx, d: Tensor) -> tuple[Tensor, Tensor]:
            x, w = context.saved_tensors  # type: ignore[attr-defined]
            return rounded(d, kind) @ rounded(w, kind), rounded(d, kind).T @ rounded(x, kind)

    x, y = samples()
    part = np.arange(sum(SIZES[:client]), sum(SIZES[: client + 1]))
    parameters = [p.detach().clone().requires_grad_() for p in network().parameters()]
    optimizer = torch.optim.SGD(parameters, LOCAL.lr)
    for batch in batches_of(plan_batches(len(part), local, stream(0, Purpose.BATCHES, 1, client)), part):
        w0, b0, w1, b1 = parameters
        hidden = torch.tanh(Rounded.apply(x[batch].flatten(1), w0) + b0)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(Rounded.apply(hidden, w1) + b1, y[batch]))
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in parameters])


@pytest.mark.parametrize("kind", ["tf32", "bf16"])
def test_stacked_lanes_learn_what_rounded_products_teach(kind: Products) -> None:
    local = LOCAL.model_copy(update={"epochs": None, "steps": 1})  # later steps round other numbers
    found, full = train("stacked", kind, (0, 1), local), train("stacked", "full", (0, 1), local)
    for client, y in found.items():
        expected = train_plainly(kind, client, local)
        off, apart = (torch.linalg.vector_norm(other - expected) for other in (y, full[client]))
        assert off < apart / 20


@pytest.mark.parametrize("backend", ["stacked", "each", "vmap"])
def test_a_lane_gets_the_same_bits_alone(backend: Backend) -> None:
    together = train(backend, "bf16", (0, 1, 2))
    assert all(torch.equal(train(backend, "bf16", (client,))[client], y) for client, y in together.items())


def test_autograds_roads_multiply_as_autocast_does() -> None:
    found = train("each", "bf16", (0,))[0]
    x, y = samples()
    module = copy.deepcopy(network())
    optimizer = torch.optim.SGD(module.parameters(), LOCAL.lr)
    part = np.arange(SIZES[0])
    for batch in batches_of(plan_batches(len(part), LOCAL, stream(0, Purpose.BATCHES, 1, 0)), part):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(module(x[batch]), y[batch])
        torch.autograd.backward(loss)
        optimizer.step()
    torch.testing.assert_close(found, Layout.of(module).flatten(module), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(InvalidExperiment, match=r"no tf32 on cpu with run.backend = each"):
        train("each", "tf32", (0,))


def test_a_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    experiment = Experiment(run={"products": "tf32", "backend": "each", "workers": 2})
    with pytest.raises(InvalidExperiment, match=r"no tf32 on cpu with run.backend = each"):
        fedopt.run(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()
