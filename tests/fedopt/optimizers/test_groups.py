"""local.groups: on each client alone, the steps are those of torch.optim with the same parameter groups."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clients.lanes.backends import Backend
from clients.lanes.packing import Packing
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining, Result
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.ditto import Ditto
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.data.batches import plan_batches
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.base import Gradient, Samples
from fedopt.optimizers.groups import grouped
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.schedules.base import Rates, RowRates
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.benchmarks.plain_loop import batches_of
from tests.fedopt.optimizers.references import Climbing, Larc, Lookahead, lars, relative_error, scalars_in_float64

SIZES = (1, 9, 10, 23)
BACKENDS: tuple[Backend, ...] = ("stacked", "each", "vmap")
FACTORS = [
    {"parameters": ["1.*"], "lr_factor": 0.25},
    {"parameters": ["5.weight"], "lr_factor": 2.0},
    {"parameters": ["3.bias"], "lr_factor": 0.0},
]
GROUPS = [
    {"parameters": ["1.*", "!*.bias"], "lr_factor": 0.25, "weight_decay": 0.3},
    {"parameters": ["5.weight"], "lr_factor": 2.0},
    {"parameters": ["3.bias", "5.bias"], "weight_decay": 0.0},
]
DECAY = 0.05
"""The weight decay of optimizers that have one, outside the groups that give another."""

Groups = list[dict[str, Any]]
Reference = Callable[[Groups, float], torch.optim.Optimizer]


class Lion(torch.optim.Optimizer):
    def __init__(self, groups: Groups, lr: float, decay: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.enable_grad():
            closure()
        for group in self.param_groups:
            for theta in group["params"]:
                m = self.state[theta].get("m", torch.zeros_like(theta))
                c = torch.sign(0.9 * m + 0.1 * theta.grad)
                theta -= group["lr"] * (c + group["weight_decay"] * theta)
                self.state[theta]["m"] = 0.99 * m + 0.01 * theta.grad


class Lars(torch.optim.Optimizer):
    def __init__(self, groups: Groups, lr: float) -> None:
        super().__init__(groups, {"lr": lr})
        self._rule = lars(0.9, 0.01, DECAY, skip_vectors=False)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        closure()
        with torch.no_grad():
            for group in self.param_groups:
                for theta in group["params"]:
                    self._rule(theta, theta.grad.clone(), self.state[theta], group["lr"])


OF_TORCH: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05},
    "momentum": {"momentum": 0.9, "lr": 0.02},
    "nesterov": {"momentum": 0.9, "nesterov": True, "lr": 0.02},
    "dampening": {"momentum": 0.9, "dampening": 0.4, "lr": 0.02},
    "adagrad": {"optimizer": "adagrad", "initial_accumulator_value": 0.1, "lr": 0.01},
    "rmsprop": {"optimizer": "rmsprop", "lr": 0.001},
    "rmsprop-centered": {"optimizer": "rmsprop", "centered": True, "momentum": 0.9, "eps": 0.01, "lr": 0.001},
    "adam": {"optimizer": "adam", "lr": 0.003},
    "adamw": {"optimizer": "adamw", "lr": 0.003},
    "adam-amsgrad": {"optimizer": "adam", "amsgrad": True, "lr": 0.003},
    "nadam": {"optimizer": "nadam", "lr": 0.003},
    "radam": {"optimizer": "radam", "lr": 0.003},
}
WRAPPED: dict[str, tuple[dict[str, Any], Reference]] = {
    "lion": ({"optimizer": "lion", "lr": 0.001}, lambda groups, lr: Lion(groups, lr, DECAY)),
    "sam": (
        {"optimizer": "sam", "rho": 0.1, "momentum": 0.9, "lr": 0.02},
        lambda groups, lr: Climbing(torch.optim.SGD(groups, lr, 0.9, weight_decay=DECAY), 0.1),
    ),
    "sam-adamw": (
        {"optimizer": "sam", "rho": 0.1, "base": "adamw", "lr": 0.003},
        lambda groups, lr: Climbing(torch.optim.AdamW(groups, lr, weight_decay=DECAY), 0.1),
    ),
    "asam": (
        {"optimizer": "asam", "rho": 0.5, "lr": 0.02},
        lambda groups, lr: Climbing(torch.optim.SGD(groups, lr, weight_decay=DECAY), 0.5, 0.01),
    ),
    "lookahead": (
        {"optimizer": "lookahead", "sync_period": 3, "momentum": 0.9, "lr": 0.02},
        lambda groups, lr: Lookahead(torch.optim.SGD(groups, lr, 0.9, weight_decay=DECAY), 3, 0.5),
    ),
}
ONE_DECAY: dict[str, tuple[dict[str, Any], Reference]] = {
    "larc": (
        {"optimizer": "larc", "momentum": 0.9, "lr": 0.05},
        lambda groups, lr: Larc(torch.optim.SGD(groups, lr, 0.9), 0.02, DECAY, clip=True),
    ),
    "lars": ({"optimizer": "lars", "momentum": 0.9, "trust": 0.01, "lr": 0.5}, Lars),
}
"""Where groups may have rates, and no weight decay."""

CASES = [*OF_TORCH, *WRAPPED, *ONE_DECAY]


def settings(case: str) -> tuple[LocalSettings, Groups]:
    keys = OF_TORCH.get(case) or (WRAPPED | ONE_DECAY)[case][0]
    groups = FACTORS if case in ONE_DECAY else GROUPS
    return LocalSettings(**{"epochs": 2, "batch_size": 5, "weight_decay": DECAY, **keys}, groups=groups), groups


def chosen(module: nn.Module, groups: Groups, lr: float) -> Groups:
    """The parameter groups for torch, written out for the mlp of the tests."""
    named = dict(module.named_parameters())
    members: dict[str, list[str]] = {
        "1.*": ["1.weight", "1.bias"],
        "!*.bias": ["1.weight"],
        "5.bias": ["3.bias", "5.bias"],
    }
    found: Groups = []
    for group in groups:
        last: str = group["parameters"][-1]
        names = members.get(last, [last])
        decay = {"weight_decay": group["weight_decay"]} if "weight_decay" in group else {}
        found.append({"params": [named.pop(name) for name in names], "lr": lr * group.get("lr_factor", 1.0), **decay})
    return [*found, {"params": list(named.values())}]


def mlp() -> nn.Module:
    family = Experiment(model={"name": "mlp", "hidden": [12, 7]}).model
    return build_model(family, (8,), 4, seed=3).double()


def alone(module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, batches: Iterable[Tensor]) -> None:
    for batch in batches:

        def closure(batch: Tensor = batch) -> float:
            optimizer.zero_grad()
            loss = F.cross_entropy(module(x[batch]), y[batch])
            torch.autograd.backward(loss)
            return loss.item()

        with scalars_in_float64():
            optimizer.step(closure)


class Federation:
    """Ragged clients side by side, and what each of them is alone."""

    def __init__(self, local: LocalSettings, algorithm: Algorithm, backend: Backend) -> None:
        rng = np.random.default_rng(1)
        self.x = torch.from_numpy(rng.standard_normal((sum(SIZES), 8)))
        self.y = torch.from_numpy(rng.integers(0, 4, sum(SIZES)))
        ends = np.cumsum(SIZES)
        self.parts = [rng.permutation(np.arange(end - size, end)) for end, size in zip(ends, SIZES, strict=True)]
        self._local, self.module = local, mlp()
        self.layout = Layout.of(self.module)
        self.start = self.layout.flatten(self.module)
        self.trainer = LaneTrainer(
            LocalTraining(Task(self.module), algorithm, local, 5), (self.x, self.y), Execution(backend, len(SIZES))
        )

    def results(self, state: dict[str, Tensor], down: dict[str, Tensor]) -> list[Result]:
        jobs = [Job(WorkOrder(client, None), part, state) for client, part in enumerate(self.parts)]
        return sorted(self.trainer.train(Broadcast(2, self.start, down), jobs), key=lambda result: result.order.client)

    def clients(self) -> Iterator[tuple[nn.Module, list[Tensor]]]:
        for client, part in enumerate(self.parts):
            plan = plan_batches(len(part), self._local, stream(5, Purpose.BATCHES, 2, client))
            yield copy.deepcopy(self.module), batches_of(plan, part)


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        pytest.param(case, backend, marks=() if backend == BACKENDS[number % 3] else pytest.mark.slow)
        for number, case in enumerate(CASES)
        for backend in BACKENDS
    ],
)
def test_steps_are_those_of_torchs_parameter_groups(case: str, backend: Backend) -> None:
    local, groups = settings(case)
    federation = Federation(local, FedAvg(), backend)
    exact = case in ("sgd", "momentum", "nesterov", "dampening", "lion", "sam", "asam", "lookahead", *ONE_DECAY)
    for result, (own, batches) in zip(federation.results({}, {}), federation.clients(), strict=True):
        parameters = chosen(own, groups, local.lr)
        reference = (WRAPPED | ONE_DECAY)[case][1] if case not in OF_TORCH else local.optimizer.torch_optimizer
        built = reference(parameters, local.lr)  # type: ignore[arg-type]
        assert built is not None
        alone(own, built, federation.x, federation.y, batches)
        error = relative_error(federation.start + result.up["dx"], federation.layout.flatten(own))
        assert error < (1e-12 if exact else 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_factors_are_of_the_schedules_rates(backend: Backend) -> None:
    keys = {**OF_TORCH["momentum"], "schedule": "exponential", "gamma": 0.8, "schedule_over": "steps"}
    local = LocalSettings(**keys, steps=4, batch_size=5, groups=FACTORS)
    federation = Federation(local, FedAvg(), backend)
    for result, (own, batches) in zip(federation.results({}, {}), federation.clients(), strict=True):
        optimizer = torch.optim.SGD(chosen(own, FACTORS, local.lr), local.lr, 0.9)
        first = [group["lr"] for group in optimizer.param_groups]
        for step, batch in enumerate(batches):
            for group, lr in zip(optimizer.param_groups, first, strict=True):
                group["lr"] = lr * 0.8**step
            alone(own, optimizer, federation.x, federation.y, [batch])
        assert relative_error(federation.start + result.up["dx"], federation.layout.flatten(own)) < 1e-12


@pytest.mark.parametrize("correction", ["inside", "outside"])
@pytest.mark.parametrize("case", ["plain", "sgd", "momentum"])
def test_scaffolds_control_is_the_mean_raw_gradient(case: str, correction: Literal["inside", "outside"]) -> None:
    local, groups = (
        settings(case) if case != "plain" else (LocalSettings(epochs=2, batch_size=5, groups=FACTORS), FACTORS)
    )
    algorithm = Scaffold(correction=correction)
    for backend in ("stacked", "each"):
        federation = Federation(local, algorithm, backend)
        c, c_i = torch.randn(2, len(federation.start), generator=torch.Generator().manual_seed(0)).double()
        for result, (own, batches) in zip(
            federation.results({"c_i": c_i}, {"c": c}), federation.clients(), strict=True
        ):
            optimizer = local.optimizer.torch_optimizer(chosen(own, groups, local.lr), local.lr)  # type: ignore[arg-type]
            assert optimizer is not None
            shifts = dict(zip(own.parameters(), federation.layout.split(c - c_i).values(), strict=True))
            raw = torch.zeros_like(c)
            for batch in batches:
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(own(federation.x[batch]), federation.y[batch]))
                raw += torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None])
                with torch.no_grad():
                    for p, shift in shifts.items():
                        assert p.grad is not None
                        p.grad += shift if correction == "inside" else 0.0
                optimizer.step()
                with torch.no_grad():
                    for group in optimizer.param_groups if correction == "outside" else ():
                        for p in group["params"]:
                            p -= group["lr"] * shifts[p]
            assert relative_error(federation.start + result.up["dx"], federation.layout.flatten(own)) < 1e-12
            assert relative_error(c_i + result.up["dc"], raw / len(batches)) < 1e-12


def test_dittos_own_models_step_at_the_rates_of_the_groups() -> None:
    """Plainly: at lr times the factor, without momentum or weight decay."""
    local, _ = settings("momentum")
    federation = Federation(local, Ditto(lam=0.5), "each")
    factors = {"1.weight": 0.25, "5.weight": 2.0}
    named = federation.module.named_parameters()
    row = torch.cat([torch.full_like(p.detach().flatten(), factors.get(name, 1.0)) for name, p in named])
    results = federation.results({"v": federation.start + 0.1}, {})
    for result, (own, batches) in zip(results, federation.clients(), strict=True):
        v = federation.start + 0.1
        for batch in batches:
            torch.nn.utils.vector_to_parameters(v, own.parameters())
            gradients = torch.autograd.grad(
                F.cross_entropy(own(federation.x[batch]), federation.y[batch]), list(own.parameters())
            )
            g = torch.cat([gradient.flatten() for gradient in gradients])
            v = v - local.lr * row * (g + 0.5 * (v - federation.start))
        assert relative_error(result.state["v"], v.detach()) < 1e-12


class Separate(Gradient):
    """A gradient whose entries depend on their own entries of theta alone."""

    def __init__(self, theta: Tensor) -> None:
        self._theta = theta

    def __call__(self) -> Tensor:
        return self._theta - 0.1 * torch.arange(self._theta.shape[1], dtype=torch.float64).sin()

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        found = self()
        target.mul_(keep).add_(found, alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        self.add_to(self._theta, 1.0, scale)

    def samples(self) -> Samples:
        return Samples(torch.tensor([0, 1]), [2, 3])


OTHERS: dict[str, dict[str, Any]] = {
    "averaged-gradient": {"optimizer": "averaged-gradient", "weight_decay": DECAY},
    "look-ahead": {"momentum": 0.9, "nesterov": True, "nesterov_form": "look-ahead", "weight_decay": DECAY},
    "asgd": {"optimizer": "asgd", "lambd": 0.1, "average_from": 3, "weight_decay": DECAY},
    "amsgrad": {"optimizer": "amsgrad"},
    "muon": {"optimizer": "muon", "weight_decay": DECAY},
    "sag": {"optimizer": "sag", "batch_size": 1},
    "saga": {"optimizer": "saga", "batch_size": 1},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_parameter_goes_where_an_optimizer_of_its_rate_and_decay_leads_it(name: str) -> None:
    """The gradient of one parameter does not depend on the other."""
    shapes, rates = {"matrix": (8, 4), "vector": (16,)}, [0.1, 0.05, 0.2, 0.1, 0.1]
    layout = Packing(Layout(tuple(shapes), tuple(map(torch.Size, shapes.values()))), torch.zeros(0).double())
    start = torch.randn(2, layout.width, generator=torch.Generator().manual_seed(0)).double()

    def end(local: LocalSettings, factor: float) -> dict[str, Tensor]:
        theta = start.clone()
        groups = grouped(local.optimizer, local.groups, layout, theta)
        lanes = groups.optimizer.build(theta, layout)
        scaled = Rates([factor * rate for rate in rates], torch.float64)
        lanes.begin(2, scaled if groups.factors is None else RowRates(scaled, groups.factors))
        for _ in rates:
            lanes.step(Separate(theta))
        return layout.views(theta)

    keys = OTHERS[name]
    own = {"weight_decay": 0.3} if LocalSettings(**keys).optimizer.takes_group_decay else {}
    group = {"parameters": ["v*"], "lr_factor": 0.25, **own}
    both = end(LocalSettings(**keys, groups=[group]), 1.0)
    assert relative_error(both["matrix"], end(LocalSettings(**keys), 1.0)["matrix"]) < 1e-14
    assert relative_error(both["vector"], end(LocalSettings(**{**keys, **own}), 0.25)["vector"]) < 1e-14


def test_every_optimizer_is_tried_with_groups_or_refuses_them() -> None:
    tried = {settings(case)[0].optimizer.name for case in CASES}
    tried |= {LocalSettings(**keys).optimizer.name for keys in OTHERS.values()}
    full = {"lbfgs": "full", "sag": 1, "saga": 1}
    for name in set(OPTIMIZERS) - tried:
        with pytest.raises(InvalidExperiment, match=rf"^local\.groups: the steps of {name} solve for all parameters"):
            Experiment(local={"optimizer": name, "batch_size": full.get(name, 16), "groups": FACTORS})


@pytest.mark.parametrize("backend", ["stacked", "each"])
@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "adamw", "weight_decay": DECAY}], ids=["sgd", "adamw"])
def test_a_client_has_the_same_bits_beside_others(backend: Backend, optimizer: dict[str, Any]) -> None:
    local = LocalSettings(**optimizer, steps=3, batch_size=5, lr=0.01, groups=GROUPS)
    federation = Federation(local, FedAvg(), backend)
    together = federation.results({}, {})
    for client, part in enumerate(federation.parts):
        (result,) = federation.trainer.train(Broadcast(2, federation.start), [Job(WorkOrder(client, None), part, {})])
        assert result.up["dx"].equal(together[client].up["dx"])
