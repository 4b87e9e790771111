"""What a GPU would be asked to do, on a machine that need not have one.

torch's fake tensors carry shapes, types and devices and refuse every operation that mixes devices or needs a value on
the host: a round that goes through keeps all its data on the device and never waits for it before its end. They also
tell autograd that there is a GPU, after which it starts threads and refuses to work in forks: so these tests are in
another process.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clients.lanes.recording import Record
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from clients.stacked.backend import StackedLanes
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.optimizers.local import LocalSettings
from fedopt.precision import Products
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from tests.processes import apart

SHAPES = {"logistic": (1, 28, 28), "mlp": (1, 28, 28), "cnn": (1, 28, 28), "resnet8": (3, 16, 16)}

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "adam": {"optimizer": "adam"},
    "sam": {"optimizer": "sam"},
    "clip": {"clip": 1.0},
    "groups": {"optimizer": "adamw", "groups": [{"parameters": ["*.bias"], "lr_factor": 2.0, "weight_decay": 0.1}]},
}

HEAVY = ("cnn", "resnet8")

SIZES = (41, 30, 12, 5)


class RoundOver(Exception):
    """All steps are taken; what follows may ask for values."""


def done_again(work: Callable[[], None]) -> Callable[[], object]:
    """A recorder for tensors without numbers."""
    work()
    return lambda: None


def train(
    model: str,
    algorithm: Algorithm,
    local: LocalSettings,
    device: str,
    lanes: int,
    *,
    products: Products = "full",
    record: Record | None = None,
) -> None:
    """One round of `lanes` clients; RoundOver after their last step."""
    with torch.device(device):
        module = build_model(Experiment(model={"name": model}).model, SHAPES[model], 10, seed=0)
        x = torch.zeros(sum(SIZES), *SHAPES[model])
        y = torch.zeros(sum(SIZES), dtype=torch.long)
    layout = Layout.of(module)
    start = layout.flatten(module)
    trainer = LaneTrainer(
        LocalTraining(Task(module), algorithm, local, 0), (x, y), Execution("stacked", lanes, products, record=record)
    )
    gradients = trainer._gradients
    assert isinstance(gradients, StackedLanes)
    asked = []

    def losses() -> Tensor:
        asked.append(1)
        found = StackedLanes.losses(gradients)
        assert found.device.type == device
        if len(asked) == 2:  # first to clear them, then for the records
            raise RoundOver
        return found

    gradients.losses = losses  # type: ignore[method-assign]
    kept, down = algorithm.client_state(start), algorithm.sends_down(algorithm.server_state(start))
    ends = np.cumsum(SIZES)
    parts = [np.arange(end - size, end) for end, size in zip(ends, SIZES, strict=True)]
    trainer.train(
        Broadcast(1, start, down), [Job(WorkOrder(c, None), part, kept) for c, part in enumerate(parts[:lanes])]
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()], ids=["fedavg", "scaffold"])
@pytest.mark.parametrize("model", ["logistic", "mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in HEAVY)])
@apart
def test_no_step_of_a_round_waits_for_the_device(model: str, algorithm: Algorithm, optimizer: str) -> None:
    local = LocalSettings(**{"lr": 0.1, "epochs": 1, "batch_size": 10, **OPTIMIZERS[optimizer]})
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fake tensors have no addresses
        with pytest.raises(RoundOver):
            train(model, algorithm, local, "cuda", lanes=len(SIZES))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()], ids=["fedavg", "scaffold"])
@pytest.mark.parametrize("products", [pytest.param("tf32", marks=pytest.mark.slow), "bf16"])
@apart
def test_nor_does_one_that_is_recorded_and_rounds(products: Products, algorithm: Algorithm, optimizer: str) -> None:
    local = LocalSettings(**{"lr": 0.1, "epochs": 1, "batch_size": 10, **OPTIMIZERS[optimizer]})
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RoundOver):
            train("mlp", algorithm, local, "cuda", lanes=len(SIZES), products=products, record=done_again)


@apart
def test_no_step_of_a_convolutional_round_waits_either() -> None:
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        local = LocalSettings(lr=0.1, optimizer="sam", epochs=1, batch_size=10)
        with pytest.raises(RoundOver):
            train("cnn", Scaffold(), local, "cuda", lanes=3)


@apart
def test_fake_tensors_do_refuse_what_waits_or_mixes_devices() -> None:
    with FakeTensorMode():
        x = torch.zeros(3, device="cuda")
        with pytest.raises(DataDependentOutputException):
            x.sum().item()
        with pytest.raises(RuntimeError, match="device"):
            x + torch.zeros(3)


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what a device is asked to do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func.namespace != "prim":  # that asks a tensor where it is
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "model", ["logistic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mlp", "cnn"))]
)
@apart
def test_four_lanes_take_hardly_more_calls_than_two(model: str, optimizer: str) -> None:
    def calls(lanes: int, steps: int) -> int:
        local = LocalSettings(**{"lr": 0.1, "steps": steps, "batch_size": 5, **OPTIMIZERS[optimizer]})
        with FakeTensorMode(), warnings.catch_warnings(), Calls() as counted:
            warnings.simplefilter("ignore")
            with pytest.raises(RoundOver):
                train(model, FedAvg(), local, "cuda", lanes)
        return sum(counted.counts.values())

    of_two, of_four = (calls(lanes, steps=40) - calls(lanes, steps=20) for lanes in (2, 4))
    assert 0 < of_four <= 1.1 * of_two  # losses are computed for fewer steps at once
