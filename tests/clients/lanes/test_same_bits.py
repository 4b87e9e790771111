"""A client learns the same bits alone and among others, whatever the shapes: nothing may hang on a lane's position.

Shapes are drawn: what divides evenly into vectors of the processor hides the tails that kernels compute differently.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clients.lanes.backends import Backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from clients.stacked import products
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.drift.gradients import GRADIENT
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.task import Task
from fedopt.vectors.layout import Layout

CLASSES, CLIENTS = 3, 5

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}

OPTIMIZERS: dict[str, dict[str, object]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "sam": {"optimizer": "sam"},
    "sam-4": {"optimizer": "sam", "p": 4.0},
    "sam-inf": {"optimizer": "sam", "p": float("inf")},
    "clip": {"clip": 0.1},
    "radam": {"optimizer": "radam", "betas": (0.9, 0.99)},
    "larc": {"optimizer": "larc", "momentum": 0.9},
}


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    activation = ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))]
    if draw(st.booleans()):
        features, hidden = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        norm: list[nn.Module] = [nn.LayerNorm(hidden)] if draw(st.booleans()) else []
        return nn.Sequential(
            nn.Linear(features, hidden), *norm, activation(), nn.Linear(hidden, CLASSES, bias=draw(st.booleans()))
        ), (features,)
    channels, side = draw(st.integers(1, 3)), draw(st.integers(5, 9))
    pool = draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)]))
    inner = (side - 2) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.GroupNorm(2, 4),
        activation(),
        pool,
        nn.Flatten(),
        nn.Linear(4 * inner * inner, CLASSES),
    ), (channels, side, side)


def by_client(
    module: nn.Module,
    backend: Backend,
    algorithm: Algorithm,
    local: LocalSettings,
    data: tuple[Tensor, Tensor],
    lanes: int,
    round_: int = 1,
) -> dict[int, dict[str, Tensor | float]]:
    """All vectors that each client sends or stores, and the numbers that it reports."""
    layout = Layout.of(module)
    start = layout.flatten(module)
    cuts = np.array_split(np.arange(len(data[1])), [2, 9, 10, 30])
    down = {name: 0.01 * torch.ones_like(vector) for name, vector in algorithm.server_state(start).items()}
    kept = {name: -0.02 * torch.ones_like(vector) for name, vector in algorithm.client_state(start).items()}
    trainer = LaneTrainer(LocalTraining(Task(module), algorithm, local, 1), data, Execution(backend, lanes))
    found: dict[int, dict[str, Tensor | float]] = {}
    for first in range(0, CLIENTS, lanes):
        jobs = [
            Job(WorkOrder(client, None), cuts[client], kept) for client in range(first, min(first + lanes, CLIENTS))
        ]
        for result in trainer.train(Broadcast(round_, start, down, gradient=True), jobs):
            numbers: dict[str, Tensor | float] = {"loss": result.numbers.loss, **result.numbers.own}
            found[result.order.client] = {
                name: vector.clone() if isinstance(vector, Tensor) else vector
                for name, vector in {**numbers, **result.up, **result.state}.items()
            }
    return found


DRAWN = given(
    network=networks(),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    scaffold=st.booleans(),
    batch=st.sampled_from([1, 3, 7, 16, "full"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
Network = tuple[nn.Module, tuple[int, ...]]


@pytest.mark.parametrize("backend", ["stacked", "each"])
@settings(max_examples=20)
@DRAWN
def test_lanes_do_not_change_a_bit(
    network: Network, optimizer: str, scaffold: bool, batch: int | str, dtype: torch.dtype, seed: int, backend: Backend
) -> None:
    compare(network, optimizer, scaffold, batch, dtype, seed, backend)


@settings(max_examples=40)
@DRAWN
def test_lanes_do_not_change_a_bit_under_numpy_s_blas(
    network: Network, optimizer: str, scaffold: bool, batch: int | str, dtype: torch.dtype, seed: int
) -> None:
    """What processors that are not Intel's use, wherever NumPy's BLAS has the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_is_intel", lambda: False)
        products._small_kernels.cache_clear()
        try:
            if products.numpy_blas() is None:
                pytest.skip("NumPy's BLAS has no small kernels for this processor")
            compare(network, optimizer, scaffold, batch, dtype, seed, "stacked")
        finally:
            products._small_kernels.cache_clear()


def compare(
    network: Network, optimizer: str, scaffold: bool, batch: int | str, dtype: torch.dtype, seed: int, backend: Backend
) -> None:
    """One client at a time against two and five side by side."""
    module, shape = network
    generator = torch.Generator().manual_seed(seed)
    module = module.to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    x = torch.randn(47, *shape, generator=generator, dtype=dtype)
    y = torch.randint(0, CLASSES, (47,), generator=generator)
    local = LocalSettings.model_validate({"lr": 0.05, "epochs": 2, "batch_size": batch, **OPTIMIZERS[optimizer]})
    algorithm: Algorithm = Scaffold() if scaffold else FedAvg()
    alone = by_client(module, backend, algorithm, local, (x, y), lanes=1)
    for lanes in (2, 5):
        beside = by_client(module, backend, algorithm, local, (x, y), lanes)
        for client, expected in alone.items():
            assert beside[client].keys() == expected.keys() >= {"dx", GRADIENT, "loss"}
            for name, value in expected.items():
                other = beside[client][name]
                same = torch.equal(value, other) if isinstance(value, Tensor) else value == other  # type: ignore[arg-type]
                assert same, f"{name} of client {client} in {lanes} lanes"


@pytest.mark.parametrize("backend", ["stacked", "each"])
def test_lanes_do_not_change_a_bit_where_small_clients_take_the_most_steps(backend: Backend) -> None:
    """Lanes are sorted by steps, and passes over all data by samples; among these clients the orders differ."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    data = torch.randn(40, 3), torch.randint(0, CLASSES, (40,))
    local = LocalSettings(lr=0.05, steps="uniform(1, 9)", batch_size=4)
    for round_ in range(1, 9):  # some orders are their own inverse
        algorithm = Scaffold(variant="full-gradient")
        alone, together = (by_client(module, backend, algorithm, local, data, lanes, round_) for lanes in (1, CLIENTS))
        for client in range(CLIENTS):
            for name, value in alone[client].items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(together[client][name])), (client, name)
