"""`python -m tests.fedopt.optimizers.equality`: lanes against the references, optimizer by backend by model.

Ragged clients take two epochs side by side, and each takes the same minibatches alone on a plain nn.Module. The table
shows the worst relative difference of the parameters over the clients, in float64.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from fedopt.vectors.layout import Layout
from simulations.benchmarks.plain_loop import batches_of
from tests.fedopt.optimizers.references import (
    Averaging,
    Climbing,
    Kfac,
    Larc,
    Lookahead,
    LookAheadNesterov,
    Newton,
    Plain,
    Table,
    adam_without_correction,
    amsgrad,
    averaged_gradient,
    lars,
    lion,
    relative_error,
    scalars_in_float64,
)

SIZES = (1, 2, 9, 10, 23)
BACKENDS: tuple[Backend, ...] = ("stacked", "each", "vmap")
MODELS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "mlp": ((8,), {"name": "mlp", "hidden": [12, 7]}),
    "cnn": ((1, 16, 16), {"name": "cnn"}),
    "groupnorm": ((2, 4, 4), {"name": "resnet8"}),
}

Reference = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]

CASES: dict[str, tuple[dict[str, Any], Reference | None]] = {
    "sgd": ({"optimizer": "sgd", "lr": 0.05}, None),
    "sgd-momentum": ({"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01, "lr": 0.02}, None),
    "sgd-dampening": ({"optimizer": "sgd", "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.01, "lr": 0.05}, None),
    "nesterov-torch": ({"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "lr": 0.02}, None),
    "nesterov-look-ahead": (
        {
            "optimizer": "sgd",
            "momentum": 0.9,
            "nesterov": True,
            "nesterov_form": "look-ahead",
            "weight_decay": 0.01,
            "lr": 0.02,
        },
        lambda p, lr: LookAheadNesterov(p, lr, 0.9, 0.01),
    ),
    "averaged-gradient": (
        {"optimizer": "averaged-gradient", "beta": 0.9, "weight_decay": 0.01, "lr": 0.1},
        lambda p, lr: Plain(p, lr, averaged_gradient(0.9, 0.01)),
    ),
    "asgd": (
        {"optimizer": "asgd", "lambd": 0.01, "average_from": 3, "weight_decay": 0.01, "lr": 0.05},
        lambda p, lr: Averaging(p, lr, lambd=0.01, t0=1, weight_decay=0.01),
    ),
    "adagrad": (
        {"optimizer": "adagrad", "initial_accumulator_value": 0.1, "weight_decay": 0.01, "lr": 0.01},
        None,
    ),
    "rmsprop": ({"optimizer": "rmsprop", "weight_decay": 0.01, "lr": 0.001}, None),
    "rmsprop-centered": ({"optimizer": "rmsprop", "centered": True, "momentum": 0.9, "eps": 1e-2, "lr": 0.001}, None),
    "adam": ({"optimizer": "adam", "lr": 0.003}, None),
    "adamw": ({"optimizer": "adamw", "weight_decay": 0.1, "lr": 0.003}, None),
    "amsgrad": (
        {"optimizer": "amsgrad", "eps": 0.01, "lr": 0.003},
        lambda p, lr: Plain(p, lr, amsgrad(0.9, 0.999, 0.01)),
    ),
    "adam-amsgrad": ({"optimizer": "adam", "amsgrad": True, "weight_decay": 0.01, "lr": 0.003}, None),
    "adam-uncorrected": (
        {"optimizer": "adam", "bias_correction": False, "lr": 0.003},
        lambda p, lr: Plain(p, lr, adam_without_correction(0.9, 0.999, 1e-8)),
    ),
    "nadam": ({"optimizer": "nadam", "weight_decay": 0.01, "lr": 0.003}, None),
    "radam": ({"optimizer": "radam", "weight_decay": 0.01, "lr": 0.003}, None),
    "lion": (
        {"optimizer": "lion", "weight_decay": 0.1, "lr": 0.001},
        lambda p, lr: Plain(p, lr, lion(0.9, 0.99, 0.1)),
    ),
    "sam": (
        {"optimizer": "sam", "rho": 0.1, "momentum": 0.9, "lr": 0.02},
        lambda p, lr: Climbing(torch.optim.SGD(p, lr, 0.9), 0.1),
    ),
    "asam": (
        {"optimizer": "asam", "rho": 0.5, "base": "adamw", "weight_decay": 0.1, "lr": 0.003},
        lambda p, lr: Climbing(torch.optim.AdamW(p, lr, weight_decay=0.1), 0.5, 0.01),
    ),
    "lookahead-momentum": (
        {"optimizer": "lookahead", "sync_period": 3, "slow_step": 0.6, "momentum": 0.9, "lr": 0.02},
        lambda p, lr: Lookahead(torch.optim.SGD(p, lr, 0.9), 3, 0.6),
    ),
    "lookahead-adam": (
        {"optimizer": "lookahead", "base": "adam", "sync_period": 3, "lr": 0.003},
        lambda p, lr: Lookahead(torch.optim.Adam(p, lr), 3, 0.5),
    ),
    "larc-clip": (
        {"optimizer": "larc", "momentum": 0.9, "weight_decay": 0.01, "lr": 0.05},
        lambda p, lr: Larc(torch.optim.SGD(p, lr, 0.9), 0.02, 0.01, clip=True),
    ),
    "larc-scale": (
        {"optimizer": "larc", "mode": "scale", "trust": 0.1, "nesterov": True, "momentum": 0.5, "lr": 0.05},
        lambda p, lr: Larc(torch.optim.SGD(p, lr, 0.5, nesterov=True), 0.1, 0.0, clip=False),
    ),
    "lars": (
        {"optimizer": "lars", "momentum": 0.9, "weight_decay": 0.01, "lr": 0.5, "trust": 0.01},
        lambda p, lr: Plain(p, lr, lars(0.9, 0.01, 0.01, skip_vectors=False)),
    ),
    "lars-matrices": (
        {"optimizer": "lars", "weight_decay": 0.01, "lr": 0.1, "trust": 0.1, "skip_vectors": True},
        lambda p, lr: Plain(p, lr, lars(0.0, 0.1, 0.01, skip_vectors=True)),
    ),
    "sag": ({"optimizer": "sag", "batch_size": 1, "lr": 0.05}, lambda p, lr: Table(p, lr, unbiased=False)),
    "saga": ({"optimizer": "saga", "batch_size": 1, "lr": 0.02}, lambda p, lr: Table(p, lr, unbiased=True)),
    "newton": (
        {"optimizer": "newton", "damping": 2.0, "batch_size": 20, "epochs": 1, "lr": 0.5},
        lambda p, lr: Newton(p, lr, 2.0),
    ),
    "kfac": ({"optimizer": "kfac", "damping": 0.3, "batch_size": 10, "lr": 0.2}, None),
    "lbfgs": ({"optimizer": "lbfgs", "history_size": 3, "batch_size": "full", "epochs": 7, "lr": 0.2}, None),
}
"""Settings of [local], and the reference where it is not the optimizer's own `torch_optimizer`."""

SMALL = ("newton", "kfac")
"""Cases for the smallest model alone: newton's memory grows with the square of the parameters, and the reference of
kfac knows linear layers."""


def places(case: str) -> list[tuple[Backend, str]]:
    """The backends and models that a case is tried with."""
    return [(backend, model) for backend in BACKENDS for model in MODELS if case not in SMALL or model == "mlp"]


def tolerance(case: str) -> float:
    """1e-12, and 1e-10 where steps divide by the root of a second moment."""
    return 1e-10 if any(part in case for part in ("adam", "adagrad", "rms", "amsgrad", "asam")) else 1e-12


def settings(case: str) -> LocalSettings:
    keys, _ = CASES[case]
    return LocalSettings(**{"epochs": 2, "batch_size": 5, **keys})


def alone(module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, batches: Iterable[Tensor]) -> None:
    """Steps the module, one step a batch."""
    for batch in batches:

        def closure(batch: Tensor = batch) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(module(x[batch]), y[batch])
            if not isinstance(optimizer, Newton):
                torch.autograd.backward(loss)
            return loss

        if isinstance(optimizer, Table):
            optimizer.sample = int(batch)
        if isinstance(optimizer, Kfac):
            optimizer.x = x[batch]
        optimizer.step(closure)
    if isinstance(optimizer, Averaging):
        optimizer.finish()


def compare(case: str, backend: Backend, model: str) -> float:
    """The worst relative difference over the clients after a round."""
    shape, section = MODELS[model]
    local, reference = settings(case), CASES[case][1]
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((sum(SIZES), *shape)))
    y = torch.from_numpy(rng.integers(0, 4, sum(SIZES)))
    ends = np.cumsum(SIZES)
    parts = [rng.permutation(np.arange(end - size, end)) for end, size in zip(ends, SIZES, strict=True)]
    module = build_model(Experiment(model=section).model, shape, 4, seed=3).double()
    layout = Layout.of(module)
    start = layout.flatten(module)
    trainer = LaneTrainer(LocalTraining(Task(module), FedAvg(), local, 5), (x, y), Execution(backend, len(SIZES)))
    results = trainer.train(
        Broadcast(2, start), [Job(WorkOrder(client, None), part, {}) for client, part in enumerate(parts)]
    )
    errors = []
    built: torch.optim.Optimizer | None
    for result in results:
        client = result.order.client
        plan = plan_batches(SIZES[client], local, stream(5, Purpose.BATCHES, 2, client))
        own = copy.deepcopy(module)
        parameters = list(own.parameters())
        if case == "kfac":
            built = Kfac(own, local.lr, 0.3)  # reads the layers, and not only the parameters
        else:
            built = (reference or local.optimizer.torch_optimizer)(parameters, local.lr)
        assert built is not None
        with scalars_in_float64():
            if isinstance(built, Table):
                built.samples = SIZES[client]
            alone(own, built, x, y, batches_of(plan, parts[client]))
        errors.append(relative_error(start + result.up["dx"], layout.flatten(own)))
    return max(errors)


def main() -> None:
    torch.set_num_threads(1)
    columns = [(backend, model) for backend in BACKENDS for model in MODELS]
    print("| optimizer | tolerance |", " | ".join(f"{backend}, {model}" for backend, model in columns), "|")
    print("| --- | --- |", " | ".join("---" for _ in columns), "|")
    failed = []
    for case in CASES:
        found = {place: compare(case, *place) for place in places(case)}
        failed += [case] if max(found.values()) >= tolerance(case) else []
        cells = (f"{found[place]:.1e}" if place in found else "-" for place in columns)
        print(f"| {case} | {tolerance(case):.0e} |", " | ".join(cells), "|", flush=True)
    if failed:
        sys.exit(f"beyond their tolerance: {', '.join(failed)}")


if __name__ == "__main__":
    main()
