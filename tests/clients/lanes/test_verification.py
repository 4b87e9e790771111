"""The automatic choice trains the user's module and no other: what tracing does not see is found on a trial batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.lanes.backends import Backend
from clients.lanes.choice import choose_backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms.fedavg import FedAvg
from fedopt.data.batches import plan_batches
from fedopt.errors import InvalidExperiment
from fedopt.models.behavior import draws_in_training
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.seeding import Purpose, isolated, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.benchmarks.plain_loop import batches_of, train_plainly

GENERATOR = torch.Generator().manual_seed(0)
ROWS, IMAGES = torch.randn(24, 6, generator=GENERATOR), torch.randn(24, 3, 6, 6, generator=GENERATOR)
WORDS = torch.randint(0, 7, (24, 5), generator=GENERATOR).float()
Y = torch.randint(0, 3, (24,), generator=GENERATOR)
LOCAL = LocalSettings(lr=0.1, epochs=2, batch_size=5)


class PreActivation(nn.Module):
    """An in-place ReLU changes what the shortcut carries, as in published ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4 * 36, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        logits: Tensor = self.head(torch.flatten(h + self.conv(self.relu(h)), 1))
        return logits


class AddsInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = alias = self.first(x)
        h += self.second(torch.tanh(h))
        logits: Tensor = self.head(h + alias)
        return logits


class FrozenByContext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.body(x)
        logits: Tensor = self.head(h)
        return logits


class Broadcasts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        logits: Tensor = self.head(torch.flatten(h + self.pool(h), 1))
        return logits


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.flatten(self.table(x.long()), 1))
        return logits


class WholeNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.long().to(x.dtype))
        return logits


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def doubled_by_a_hook() -> nn.Module:
    module = dense()
    module.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return module


def halved_on_the_way_back() -> nn.Module:
    module = dense()

    def halve(_module: nn.Module, gradients: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, ...]:
        return tuple(0.5 * gradient for gradient in gradients)

    module[2].register_full_backward_pre_hook(halve)
    return module


def with_a_forward_of_its_own() -> nn.Module:
    module = dense()
    module[1].forward = lambda x: 0.3 * x
    return module


UNSEEN: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "in-place relu": (PreActivation, IMAGES),
    "in-place sum": (AddsInPlace, ROWS),
    "no_grad": (FrozenByContext, ROWS),
    "broadcast": (Broadcasts, IMAGES),
    "root hook": (doubled_by_a_hook, ROWS),
    "backward hook": (halved_on_the_way_back, ROWS),
    "own forward": (with_a_forward_of_its_own, ROWS),
    "whole numbers": (WholeNumbers, ROWS),
}


def learned(task: Task, x: Tensor, backend: Backend, local: LocalSettings = LOCAL) -> Tensor:
    layout = Layout.of(task.module)
    start = layout.flatten(task.module)
    trainer = LaneTrainer(LocalTraining(task, FedAvg(), local, 3), (x, Y), Execution(backend, 1))
    (result,) = trainer.train(Broadcast(1, start), [Job(WorkOrder(0, None), np.arange(24), {})])
    return start + result.up["dx"]


@pytest.mark.parametrize("name", UNSEEN)
def test_the_automatic_choice_learns_what_the_module_itself_learns(name: str) -> None:
    make, x = UNSEEN[name]
    torch.manual_seed(1)
    module, x = make().double(), x.double()
    task = Task(module)
    choice = choose_backend("auto", task, x, Y)
    assert choice.backend == "each"
    plan = plan_batches(24, LOCAL, stream(3, Purpose.BATCHES, 1, 0))
    alone = Layout.of(module).flatten(train_plainly(module, LOCAL, x, Y, batches_of(plan, np.arange(24))))
    assert torch.allclose(learned(task, x, choice.backend), alone, rtol=1e-12, atol=1e-13)
    with pytest.raises(InvalidExperiment, match=r"run\.backend: stacked does not"):
        choose_backend("stacked", task, x, Y)


@pytest.mark.parametrize("name", ["in-place relu", "in-place sum", "no_grad"])
def test_what_tracing_does_not_see_at_all_is_found_by_its_gradient(name: str) -> None:
    make, x = UNSEEN[name]
    why = choose_backend("auto", Task(make()), x, Y).why
    assert "on a trial batch its" in why
    assert "differs from plain autograd's by" in why


def test_models_of_known_layers_stay_stacked() -> None:
    torch.manual_seed(1)
    for module, x in ((dense(), ROWS), (Tables(), WORDS)):
        assert choose_backend("auto", Task(module), x, Y).backend == "stacked"


def test_a_table_learns_the_same_on_every_backend() -> None:
    torch.manual_seed(1)
    module = Tables().double()
    plain = learned(Task(module), WORDS.double(), "each")
    assert torch.allclose(learned(Task(module), WORDS.double(), "stacked"), plain, rtol=1e-12, atol=1e-13)


def test_a_module_that_uses_another_ones_parameters_is_refused() -> None:
    other = nn.Linear(6, 6)

    class Borrows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = other, nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(other(x))
            return logits

    wishes: tuple[Backend | Literal["auto"], ...] = ("auto", "each")
    for requested in wishes:
        with pytest.raises(InvalidExperiment, match="a copy of this model does not compute what the model does"):
            choose_backend(requested, Task(Borrows()), ROWS, Y)


def test_weight_decay_is_refused_where_it_would_shrink_what_is_not_trained() -> None:
    """torch.optim does not touch a parameter whose gradient is None."""
    with pytest.raises(InvalidExperiment, match=r"the model's body\.weight takes no part in the loss"):
        choose_backend("auto", Task(FrozenByContext()), ROWS, Y, decays_weights=True)
    frozen = FrozenByContext()
    frozen.body.requires_grad_(False)
    assert choose_backend("auto", Task(frozen), ROWS, Y, decays_weights=True).backend == "each"


class Scaled(nn.Module):
    """A parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.scale = nn.Linear(6, 3), nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x) * self.scale
        return logits


@pytest.mark.parametrize("backend", ["each", "vmap"])
def test_a_parameter_without_dimensions_is_trained(backend: Backend) -> None:
    torch.manual_seed(1)
    module, x = Scaled().double(), ROWS.double()
    plan = plan_batches(24, LOCAL, stream(3, Purpose.BATCHES, 1, 0))
    alone = Layout.of(module).flatten(train_plainly(module, LOCAL, x, Y, batches_of(plan, np.arange(24))))
    assert torch.allclose(learned(Task(module), x, backend), alone, rtol=1e-12, atol=1e-13)


def test_average_pooling_that_leaves_a_margin_learns_as_autograd_does() -> None:
    """The margin's gradient stays zero, step after step, though the layer before writes over what it is given."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.GELU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 3)
    ).double()
    found, plain = (learned(Task(module), IMAGES.double(), backend) for backend in ("stacked", "each"))
    assert torch.allclose(found, plain, rtol=1e-12, atol=1e-13)


def test_a_hook_on_a_parameter_is_not_lost_silently() -> None:
    module = dense()
    module.get_parameter("0.weight").register_hook(lambda gradient: 0.5 * gradient)  # type: ignore[no-untyped-call]
    with pytest.raises(InvalidExperiment, match="a copy of this model does not compute"):
        choose_backend("auto", Task(module), ROWS, Y)


def test_a_backend_that_mixes_padding_into_the_samples_is_refused() -> None:
    class Centers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(x - x.mean(0))
            return logits

    assert choose_backend("auto", Task(Centers()), ROWS, Y).backend == "each"
    with pytest.raises(InvalidExperiment, match="vmap does not compute what this model does"):
        choose_backend("vmap", Task(Centers()), ROWS, Y)


def test_the_trial_leaves_the_module_as_it_was() -> None:
    module = PreActivation()
    before, types = copy.deepcopy(module.state_dict()), [p.dtype for p in module.parameters()]
    choose_backend("auto", Task(module), IMAGES, Y)
    assert all(tensor.equal(before[name]) for name, tensor in module.state_dict().items())
    assert [p.dtype for p in module.parameters()] == types


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.dropout(torch.relu(self.first(x)), 0.5, self.training))
        return logits


@pytest.mark.parametrize("backend", ["each", "vmap"])
def test_dropout_draws_from_the_clients_own_stream(backend: Backend) -> None:
    """Against a plain loop that seeds torch's generator as `isolated` documents: one stream a round, client, step."""
    torch.manual_seed(2)
    module, x = Dropping().double(), ROWS.double()
    task = Task(module, draws=draws_in_training(module, x, "it"))
    assert choose_backend(backend, task, x, Y).backend == backend
    assert choose_backend("auto", task, x, Y).why == "it draws random numbers in training"
    found = learned(task, x, backend)

    alone = copy.deepcopy(module)
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    plan = plan_batches(24, LOCAL, stream(3, Purpose.BATCHES, 1, 0))
    for step, batch in enumerate(batches_of(plan, np.arange(24))):
        optimizer.zero_grad()
        with isolated(3, Purpose.DRAWS, 1, 0, 0, step):
            loss = F.cross_entropy(alone(x[batch]), Y[batch])
        torch.autograd.backward(loss)
        optimizer.step()
    assert torch.allclose(found, Layout.of(module).flatten(alone), rtol=1e-12, atol=1e-13)
