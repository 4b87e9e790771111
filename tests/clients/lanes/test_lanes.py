"""Lanes side by side learn what each client learns alone under plain torch.optim on a plain nn.Module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.lanes.backends import Backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms.fedavg import FedAvg
from fedopt.data.batches import plan_batches
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout, Vectors, state_of
from simulations.benchmarks.plain_loop import batches_of, sam_plainly, train_plainly

SIZES = (1, 2, 9, 10, 11, 37, 64, 200)

OPTIMIZERS = {
    "sgd": LocalSettings(lr=0.05, epochs=2, batch_size=10),
    "momentum": LocalSettings(lr=0.02, momentum=0.9, epochs=2, batch_size=10),
    "nesterov-decay": LocalSettings(lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-2, epochs=2, batch_size=10),
    "decay": LocalSettings(lr=0.05, weight_decay=0.1, epochs=2, batch_size=10),
    "clip": LocalSettings(lr=0.05, clip=0.5, epochs=2, batch_size=10),
    "steps": LocalSettings(lr=0.05, momentum=0.5, steps=13, batch_size=10),
    "full": LocalSettings(lr=0.05, epochs=3, batch_size="full"),
    "adam": LocalSettings(optimizer="adam", lr=0.003, epochs=2, batch_size=10),
    "adamw": LocalSettings(optimizer="adamw", lr=0.003, weight_decay=0.1, epochs=2, batch_size=10),
    "sam": LocalSettings(optimizer="sam", lr=0.05, momentum=0.9, rho=0.1, epochs=2, batch_size=10),
    "sam-adam": LocalSettings(optimizer="sam", base="adam", lr=0.003, rho=0.1, epochs=2, batch_size=10),
}

HEAVY = ("cnn-mcmahan", "resnet8")

MODELS = {
    "logistic": ((8,), {"name": "logistic"}),
    "mlp": ((8,), {"name": "mlp", "hidden": [12, 7]}),
    "cnn": ((1, 16, 16), {"name": "cnn"}),
    "cnn-mcmahan": ((1, 8, 8), {"name": "cnn-mcmahan"}),
    "resnet8": ((2, 4, 4), {"name": "resnet8"}),
}


def compare(model: str, local: LocalSettings, backend: Backend, lanes: int) -> float:
    """The largest relative difference, over clients, of the parameters after one round."""
    shape, section = MODELS[model]
    rng = np.random.default_rng(1)
    total = sum(SIZES)
    x = torch.from_numpy(rng.standard_normal((total, *shape)))
    y = torch.from_numpy(rng.integers(0, 4, total))
    ends = np.cumsum(SIZES)
    parts = [rng.permutation(np.arange(end - size, end)) for end, size in zip(ends, SIZES, strict=True)]
    module = build_model(Experiment(model=section).model, shape, 4, seed=3).double()
    layout = Layout.of(module)
    start = layout.flatten(module)
    trainer = LaneTrainer(LocalTraining(Task(module), FedAvg(), local, 5), (x, y), Execution(backend, lanes))
    jobs = [Job(WorkOrder(client, None), part, {}) for client, part in enumerate(parts)]
    results = [
        result
        for first in range(0, len(jobs), lanes)
        for result in trainer.train(Broadcast(2, start), jobs[first : first + lanes])
    ]
    assert sorted(result.order.client for result in results) == list(range(len(SIZES)))

    plainly = sam_plainly if local.optimizer.name == "sam" else train_plainly
    worst = 0.0
    for result in results:
        client = result.order.client
        plan = plan_batches(SIZES[client], local, stream(5, Purpose.BATCHES, 2, client))
        assert result.numbers.steps == plan.steps
        alone = layout.flatten(plainly(module, local, x, y, batches_of(plan, parts[client])))
        beside = start + result.up["dx"]
        worst = max(worst, float((beside - alone).abs().max() / alone.abs().max()))
    return worst


BACKENDS: tuple[Backend, ...] = ("stacked", "each", "vmap")

QUICK = {
    *(("stacked", model, optimizer) for model in ("mlp", "cnn") for optimizer in OPTIMIZERS),
    *((backend, "mlp", optimizer) for backend in ("each", "vmap") for optimizer in OPTIMIZERS),
    *((backend, model, "momentum") for backend in BACKENDS for model in MODELS),
}

COMBINATIONS = [
    # What differs between optimizers differs in every model, and what differs between models in every optimizer:
    # stacked lanes meet most pairs, the other two backends each optimizer and each model once.
    pytest.param(backend, model, optimizer, marks=[] if (backend, model, optimizer) in QUICK else [pytest.mark.slow])
    for backend in BACKENDS
    for model in MODELS
    for optimizer in OPTIMIZERS
    # Lighter models try every optimizer.
    if (model not in HEAVY and (backend, model) != ("vmap", "cnn"))
    or optimizer in (("sgd", "momentum", "adam", "full") if backend == "stacked" else ("momentum",))
]


@pytest.mark.parametrize(("backend", "model", "optimizer"), COMBINATIONS)
def test_lanes_equal_plain_torch_on_each_client_alone(model: str, optimizer: str, backend: Backend) -> None:
    tolerance = 1e-10 if "adam" in optimizer else 1e-12
    assert compare(model, OPTIMIZERS[optimizer], backend, lanes=len(SIZES)) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["stacked", "each", "vmap"])
def test_lanes_of_resnet18_equal_plain_torch(backend: Backend) -> None:
    MODELS["resnet18"] = ((3, 8, 8), {"name": "resnet18"})
    local = LocalSettings(lr=0.01, momentum=0.9, steps=3, batch_size=10)
    assert compare("resnet18", local, backend, lanes=4) < 1e-12


@pytest.mark.parametrize("backend", ["stacked", "each"])
@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_any_number_of_lanes_gives_the_same_bits(lanes: int, backend: Backend) -> None:
    shape, _ = MODELS["cnn"]
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((sum(SIZES), *shape)))
    y = torch.from_numpy(rng.integers(0, 4, sum(SIZES)))
    ends = np.cumsum(SIZES)
    parts = [np.arange(end - size, end) for end, size in zip(ends, SIZES, strict=True)]
    module = build_model(Experiment(model={"name": "cnn"}).model, shape, 4, seed=3).double()
    layout = Layout.of(module)
    start = layout.flatten(module)

    def by_client(lanes: int) -> dict[int, Tensor]:
        trainer = LaneTrainer(
            LocalTraining(Task(module), FedAvg(), OPTIMIZERS["sam"], 5), (x, y), Execution(backend, lanes)
        )
        jobs = [Job(WorkOrder(client, None), part, {}) for client, part in enumerate(parts)]
        groups = [
            trainer.train(Broadcast(2, start), jobs[first : first + lanes]) for first in range(0, len(jobs), lanes)
        ]
        return {result.order.client: result.up["dx"] for group in groups for result in group}

    reference = by_client(2)
    assert all(vector.equal(reference[client]) for client, vector in by_client(lanes).items())


def test_a_parameter_that_takes_no_part_gets_no_gradient() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)
            self.frozen = nn.Linear(3, 3).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.frozen(self.used(x))
            return y

    module = Unused().double()
    layout = Layout.of(module)
    assert layout.names == ("used.weight", "used.bias", "unused.weight", "unused.bias")
    start = layout.flatten(module)
    data = (torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2]))
    local = LocalSettings(lr=0.1, epochs=1, batch_size=2)
    backends: tuple[Backend, ...] = ("each", "vmap")
    for backend in backends:
        trainer = LaneTrainer(LocalTraining(Task(module), FedAvg(), local, 0), data, Execution(backend, 1))
        (result,) = trainer.train(Broadcast(1, start), [Job(WorkOrder(0, None), np.arange(6), {})])
        moved = layout.split(result.up["dx"])
        assert not moved["unused.weight"].any()
        assert moved["used.weight"].any()


class Tied(nn.Module):
    """Encoder and decoder share one matrix, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.decode(torch.tanh(self.encode(x))))
        return y


@pytest.mark.parametrize("backend", ["each", "vmap"])
def test_tied_weights_stay_tied(backend: Backend) -> None:
    torch.manual_seed(0)
    module = Tied().double()
    layout = Layout.of(module)
    start = layout.flatten(module)
    assert layout.size == 25 + 5 + 5 + 15 + 3
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.standard_normal((12, 5))), torch.from_numpy(rng.integers(0, 3, 12))
    local = LocalSettings(lr=0.1, epochs=2, batch_size=4)
    trainer = LaneTrainer(LocalTraining(Task(module), FedAvg(), local, 0), (x, y), Execution(backend, 1))
    (result,) = trainer.train(Broadcast(1, start), [Job(WorkOrder(0, None), np.arange(12), {})])

    plan = plan_batches(12, local, stream(0, Purpose.BATCHES, 1, 0))
    alone = train_plainly(module, local, x, y, batches_of(plan, np.arange(12)))
    state = state_of(module, layout, start + result.up["dx"])
    assert state.keys() == alone.state_dict().keys()
    assert all(torch.allclose(state[name], tensor, rtol=1e-12) for name, tensor in alone.state_dict().items())
    assert state["encode.weight"].equal(state["decode.weight"])


@pytest.mark.parametrize("backend", ["each", "vmap"])
def test_plain_descent_takes_the_steps_of_torch_sgd_to_the_bit(backend: Backend) -> None:
    """An algorithm with a correction of its own, here none, goes the long way through a tensor for the gradient."""
    shape, section = MODELS["cnn"]
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((40, *shape)))
    y = torch.from_numpy(rng.integers(0, 4, 40))
    module = build_model(Experiment(model=section).model, shape, 4, seed=3).double()
    layout = Layout.of(module)
    start = layout.flatten(module)
    moved = []
    for algorithm in (FedAvg(), TheLongWay()):
        local = OPTIMIZERS["sgd"]
        trainer = LaneTrainer(LocalTraining(Task(module), algorithm, local, 5), (x, y), Execution(backend, 2))
        parts = np.split(np.arange(40), [13])
        jobs = [Job(WorkOrder(i, None), part, {}) for i, part in enumerate(parts)]
        moved.append([(result.up["dx"], result.numbers.loss) for result in trainer.train(Broadcast(1, start), jobs)])
    for (short, loss), (long, same) in zip(*moved, strict=True):
        assert short.equal(long)
        assert loss == same


class TheLongWay(FedAvg):
    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        return gradient


class Interrupted(FedAvg):
    """Fails at its third gradient, once."""

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("under way")
        return gradient


calls: list[int] = []


@pytest.mark.parametrize("backend", ["stacked", "each", "vmap"])
def test_a_loss_is_the_mean_over_the_steps_even_after_a_round_that_failed(backend: Backend) -> None:
    calls.clear()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(73, 8, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (73,), generator=generator)
    module = nn.Sequential(nn.Linear(8, 4)).double()
    layout, local = Layout.of(module), LocalSettings(lr=0.1, epochs=10, batch_size=10)
    start = layout.flatten(module)
    trainer = LaneTrainer(LocalTraining(Task(module), Interrupted(), local, 5), (x, y), Execution(backend, 1))
    job = Job(WorkOrder(0, None), np.arange(73), {})
    with pytest.raises(RuntimeError, match="under way"):
        trainer.train(Broadcast(2, start), [job])
    (result,) = trainer.train(Broadcast(2, start), [job])

    plan = plan_batches(73, local, stream(5, Purpose.BATCHES, 2, 0))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses: list[float] = []
    for batch in batches_of(plan, np.arange(73)):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(x[batch]), y[batch])
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert len(losses) == 80  # more than the steps whose logits are kept together
    assert result.numbers.loss == pytest.approx(sum(losses) / len(losses), rel=1e-12)
