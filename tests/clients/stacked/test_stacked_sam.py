"""SAM's gradients without moving the weights, against autograd on moved weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from clients.lanes.batches import LaneBatch
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from clients.stacked.backend import StackedLanes
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.task import Task
from fedopt.vectors.layout import Layout

CLASSES = 3

activations = st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU])


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """Linear layers, some without a bias, with activations between them."""
    widths = [draw(st.integers(4, 40)) for _ in range(draw(st.integers(1, 3)))]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(widths, [*widths[1:], CLASSES], strict=True):
        layers += [nn.Linear(inputs, outputs, bias=draw(st.booleans())), draw(activations)()]
    return nn.Sequential(*layers[:-1]).double()


def batch_of(x: Tensor, y: Tensor, counts: list[int]) -> LaneBatch:
    lanes, width = y.shape
    counted = torch.tensor(counts)[:, None]
    weights = (torch.arange(width) < counted) * (width / counted.double())
    return LaneBatch(x.flatten(0, 1), torch.arange(lanes * width), y, weights, np.array(counts))


@given(
    networks(),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.floats(1e-3, 3.0),
    st.integers(0, 2**31),
)
def test_perturbed_gradients_are_those_of_autograd(module: nn.Module, counts: list[int], rho: float, seed: int) -> None:
    layout = Layout.of(module)
    generator = torch.Generator().manual_seed(seed)
    lanes, width = len(counts), max(counts)
    features = next(layer.in_features for layer in module.modules() if isinstance(layer, nn.Linear))
    x = torch.randn(lanes, width, features, generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (lanes, width), generator=generator)
    flat = torch.randn(lanes, layout.size, generator=generator, dtype=torch.float64) / 2
    stacked = StackedLanes(Task(module), layout, flat, lanes)
    stacked.theta.copy_(stacked.packing.pack(flat))
    batch = batch_of(x, y, counts)
    perturbed_pass = stacked.perturbed(batch)
    assume(perturbed_pass is not None)
    assert perturbed_pass is not None

    found, twice = torch.zeros_like(stacked.theta), torch.ones_like(stacked.theta)
    perturbed_pass.accumulate(batch, found, 0.0, 1.0, rho, True)
    perturbed_pass.accumulate(batch, twice, 2.0, -0.5, rho, False)  # buffers that are used a second time
    assert stacked.theta.equal(stacked.packing.pack(flat))
    losses = stacked.losses()

    for lane, count in enumerate(counts):
        own_x, own_y = x[lane, :count], y[lane, :count]

        def gradient_at(theta: Tensor, x: Tensor = own_x, y: Tensor = own_y) -> tuple[Tensor, Tensor]:
            theta = theta.clone().requires_grad_()
            loss = F.cross_entropy(torch.func.functional_call(module, layout.split(theta), (x,)), y)
            return loss.detach(), torch.autograd.grad(loss, theta)[0]

        loss, here = gradient_at(flat[lane])
        assume(float(here.norm()) > 1e-3)  # nearer to zero its direction is lost in rounding, on any backend
        _, perturbed = gradient_at(flat[lane] + rho * here / here.norm())
        assert float(losses[lane]) == pytest.approx(float(loss), rel=1e-12)
        own = stacked.packing.unpack(found)[lane]
        assert float((own - perturbed).abs().max()) <= 1e-9 * (1.0 + float(perturbed.abs().max()))
        both = stacked.packing.unpack(twice)[lane]
        assert float((both - (2.0 - 0.5 * own)).abs().max()) <= 1e-13 * (2.0 + float(own.abs().max()))


def trained(dtype: torch.dtype, base: str, lanes: int) -> dict[int, Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10)).to(dtype)
    layout = Layout.of(module)
    sizes = (3, 10, 25, 31, 40)
    ends = np.cumsum(sizes)
    parts = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    x, y = torch.randn(sum(sizes), 50, dtype=dtype), torch.randint(0, 10, (sum(sizes),))
    local = LocalSettings(optimizer="sam", base=base, lr=0.05, rho=0.1, epochs=3, batch_size=10)
    trainer = LaneTrainer(LocalTraining(Task(module), FedAvg(), local, 5), (x, y), Execution("stacked", lanes))
    start = layout.flatten(module)
    jobs = [Job(WorkOrder(client, None), part, {}) for client, part in enumerate(parts)]
    groups = [trainer.train(Broadcast(2, start), jobs[first : first + lanes]) for first in range(0, len(jobs), lanes)]
    return {result.order.client: result.up["dx"] for group in groups for result in group}


@pytest.mark.parametrize("base", ["sgd", "adam"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_lane_gets_the_same_bits_beside_any_others(dtype: torch.dtype, base: str) -> None:
    reference = trained(dtype, base, 2)
    for lanes in (1, 3, 5):
        assert all(vector.equal(reference[client]) for client, vector in trained(dtype, base, lanes).items())


def backend(module: nn.Module, x: Tensor) -> object:
    like = torch.zeros((), dtype=x.dtype)
    stacked = StackedLanes(Task(module), Layout.of(module), like, 1)
    width = len(x)
    batch = LaneBatch(x, torch.arange(width), torch.zeros(1, width, dtype=torch.long), None, np.array([width]))
    return stacked.perturbed(batch)


def test_weights_are_moved_unless_the_factors_are_smaller() -> None:
    linear = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, CLASSES))
    assert backend(linear, torch.zeros(10, 100)) is not None
    assert backend(linear, torch.zeros(60, 100)) is None  # the factors would be larger than the weights
    convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 50))
    assert backend(convolution, torch.zeros(2, 1, 8, 8)) is None


def test_gaps_between_parameters_stay_zero() -> None:
    module = nn.Sequential(nn.Linear(50, 33), nn.ReLU(), nn.Linear(33, CLASSES))
    layout = Layout.of(module)
    x, y = torch.randn(20, 50), torch.randint(0, CLASSES, (20,))
    local = LocalSettings(optimizer="sam", base="adam", lr=0.01, epochs=1, batch_size=5)
    trainer = LaneTrainer(LocalTraining(Task(module), FedAvg(), local, 5), (x, y), Execution("stacked", 1))
    torch.use_deterministic_algorithms(True)  # memory that nobody filled holds NaN
    try:
        trainer.train(Broadcast(1, layout.flatten(module)), [Job(WorkOrder(0, None), np.arange(20), {})])
    finally:
        torch.use_deterministic_algorithms(False)
    gradients = trainer._gradients
    flat = gradients.packing.unpack(gradients.theta)
    assert gradients.packing.pack(flat).equal(gradients.theta)
