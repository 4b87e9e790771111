"""Steps that are recorded and replayed, as on a GPU, lead where steps that are taken lead.

The recorder here keeps to the rules of CUDA graphs, on the CPU: what is recorded is not done, its numbers are those it
was recorded with, it allocates nothing when it is replayed, and it reads and writes the same memory every time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clients.lanes.backends import Backend
from clients.lanes.recording import CudaGraphs, Record
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining, Result
from clients.stacked import products
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.ditto import Ditto
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.optimizers import fused
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.schedules.base import Schedule
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.sizing import choose_recording

SIZES = (31, 40, 12, 25, 3, 7, 40, 18)
SHAPE = (1, 16, 16)


class OnMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation with the tensors themselves, and puts back what the operations wrote."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func is not torch.ops.aten._local_scalar_dense.default, "a recording cannot wait for a value"
        arguments = func._schema.arguments
        given = dict(zip([argument.name for argument in arguments], args, strict=False)) | kwargs
        written = [
            tensor
            for argument in arguments
            if argument.alias_info is not None and argument.alias_info.is_write
            for tensor in tree_leaves(given.get(argument.name))
            if isinstance(tensor, Tensor)
        ]
        for tensor in written:
            memory = tensor.untyped_storage()
            if memory.data_ptr() not in self._before:
                whole = torch.empty(0, dtype=torch.uint8).set_(memory)
                self._before[memory.data_ptr()] = whole, whole.clone()
        found = func(*args, **kwargs)
        fresh = [] if func.is_view or written else [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        self.operations.append((func, args, kwargs, fresh))
        return found

    def put_back(self) -> None:
        for whole, before in self._before.values():
            whole.copy_(before)


class Recorder:
    """Implements `clients.lanes.recording.Record`."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], object]:
        self.recorded += 1
        with torch.no_grad(), OnMemory() as memory:
            work()
        memory.put_back()

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():
                for func, args, kwargs, fresh in memory.operations:
                    found = func(*args, **kwargs)
                    for old, new in zip(fresh, tree_leaves(found), strict=bool(fresh)):
                        old.copy_(new)

        return replay


def model_of(name: str, device: str = "cpu") -> nn.Module:
    return build_model(Experiment(model={"name": name}).model, SHAPE, 10, seed=0).to(device)


def trainer_of(
    model: str, algorithm: Algorithm, local: LocalSettings, backend: Backend, record: Record | None, device: str = "cpu"
) -> LaneTrainer:
    module = model_of(model, device)
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.standard_normal((sum(SIZES), *SHAPE)).astype("float32")).to(device)
    y = torch.from_numpy(rng.integers(0, 10, sum(SIZES))).to(device)
    return LaneTrainer(
        LocalTraining(Task(module), algorithm, local, 0), (x, y), Execution(backend, len(SIZES), record=record)
    )


def rounds(trainer: LaneTrainer, algorithm: Algorithm, start: Tensor) -> list[Result]:
    """Three rounds of other clients each, from other models, with what the clients kept."""
    ends = np.cumsum(SIZES)
    parts = [np.arange(end - size, end) for end, size in zip(ends, SIZES, strict=True)]
    kept = {client: algorithm.client_state(start) for client in range(len(SIZES))}
    server = algorithm.server_state(start)
    results = []
    for number, cohort in enumerate([(0, 1, 2, 3, 4), (7, 6, 5, 4, 3, 0), (1, 2, 3, 5, 6, 7)], start=1):
        down = algorithm.sends_down(server)
        jobs = [Job(WorkOrder(c, None), parts[c], kept[c]) for c in cohort]
        for result in trainer.train(Broadcast(number, start, down), jobs):
            kept[result.order.client] = {name: vector.clone() for name, vector in result.state.items()}
            start = start + 0.1 * result.up["dx"]
            server = {name: vector + 0.01 for name, vector in server.items()}
            results.append(result)
    return results


class Decaying(Schedule):
    """Another rate at every step of every round."""

    def rate(self, lr: float, round_: int, step: int) -> float:
        return lr * 0.9**round_ / (1 + step)


GROUPS = [{"parameters": ["*.bias"], "lr_factor": 0.5, "weight_decay": 0.1}]

ROUNDING = 1e-5
"""Adam steps by up to lr where the gradient is almost zero, so its last bits show: 3.6e-6 was seen on one machine."""

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 0.003},
    "sam": {"optimizer": "sam"},
    "sam on adam": {"optimizer": "sam", "base": "adam", "p": 1.0},
    "clip": {"clip": 0.5},
    "full batches": {"batch_size": "full", "steps": 3},
    "augmented": {"batch_size": "full", "steps": 3, "crop": 2, "flip": True},
    "groups": {"momentum": 0.9, "groups": GROUPS},
    "decaying": {"schedule": Decaying()},
    "decaying momentum": {"schedule": Decaying(), "momentum": 0.9},
    "decaying nesterov": {"schedule": Decaying(), "momentum": 0.9, "nesterov": True},
    "decaying adam": {"schedule": Decaying(), "optimizer": "adam", "lr": 0.003},
    "decaying sam": {"schedule": Decaying(), "optimizer": "sam"},
    "decaying groups": {"schedule": Decaying(), "optimizer": "adamw", "lr": 0.003, "groups": GROUPS},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()], ids=["fedavg", "scaffold"])
@pytest.mark.parametrize(
    ("model", "backend"),
    [
        ("logistic", "stacked"),
        pytest.param("logistic", "vmap", marks=pytest.mark.slow),
        pytest.param("cnn", "stacked", marks=pytest.mark.slow),
    ],
)
def test_replayed_rounds_are_those_that_are_taken(
    model: str, backend: Backend, algorithm: Algorithm, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "numpy_blas", lambda: None)  # which torch does not see
    local = LocalSettings(**{"lr": 0.05, "batch_size": 5, **OPTIMIZERS[optimizer]})
    record = Recorder()
    start = Layout.of(module := model_of(model)).flatten(module)
    taken = rounds(trainer_of(model, algorithm, local, backend, None), algorithm, start)
    replayed = rounds(trainer_of(model, algorithm, local, backend, record), algorithm, start)
    assert record.recorded >= 2
    assert record.replayed > record.recorded
    same(taken, replayed)


OTHERS: dict[str, dict[str, Any]] = {
    "dampening": {"momentum": 0.9, "dampening": 0.5},
    "look-ahead": {"momentum": 0.9, "nesterov": True, "nesterov_form": "look-ahead"},
    "averaged-gradient": {"optimizer": "averaged-gradient"},
    "adagrad": {"optimizer": "adagrad", "lr": 0.01},
    "rmsprop": {"optimizer": "rmsprop", "centered": True, "momentum": 0.5, "eps": 0.01, "lr": 0.003},
    "adam": {"optimizer": "adam", "amsgrad": True, "bias_correction": False, "lr": 0.003},
    "nadam": {"optimizer": "nadam", "lr": 0.003},
    "radam": {"optimizer": "radam", "betas": (0.9, 0.99), "lr": 0.003},
    "lion": {"optimizer": "lion", "lr": 0.003},
    "larc": {"optimizer": "larc", "momentum": 0.9},
    "lars": {"optimizer": "lars", "momentum": 0.9, "trust": 0.05},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("radam", "larc") else pytest.mark.slow) for name in OTHERS]
)
def test_steps_of_every_optimizer_that_says_so_can_be_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "numpy_blas", lambda: None)  # which torch does not see
    monkeypatch.setattr(fused, "has_kernels", lambda theta: False)  # which there are on the CPU alone
    local = LocalSettings(**{"lr": 0.05, "batch_size": 5, "schedule": Decaying(), **OTHERS[name]})
    algorithm, record = FedAvg(), Recorder()
    start = Layout.of(module := model_of("logistic")).flatten(module)
    taken = rounds(trainer_of("logistic", algorithm, local, "stacked", None), algorithm, start)
    replayed = rounds(trainer_of("logistic", algorithm, local, "stacked", record), algorithm, start)
    assert record.replayed > record.recorded >= 2
    same(taken, replayed)


@pytest.mark.parametrize("optimizer", ["sgd", "decaying momentum", "sam"])
@pytest.mark.parametrize("backend", ["stacked", pytest.param("vmap", marks=pytest.mark.slow)])
def test_models_that_recorded_steps_change_in_place_are_those_that_are_taken(
    backend: Backend, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "numpy_blas", lambda: None)  # which torch does not see
    algorithm, record = Ditto(lam=0.5), Recorder()
    local = LocalSettings(**{"lr": 0.05, "batch_size": 5, **OPTIMIZERS[optimizer]})
    start = Layout.of(module := model_of("logistic")).flatten(module)
    taken = rounds(trainer_of("logistic", algorithm, local, backend, None), algorithm, start)
    replayed = rounds(trainer_of("logistic", algorithm, local, backend, record), algorithm, start)
    assert record.replayed > record.recorded >= 2
    same(taken, replayed)


def same(taken: list[Result], replayed: list[Result]) -> None:
    for one, other in zip(taken, replayed, strict=True):
        assert one.order.client == other.order.client
        assert one.numbers.steps == other.numbers.steps
        torch.testing.assert_close(other.numbers.loss, one.numbers.loss)
        for name in one.up:
            assert one.up[name].abs().max() > 0
            torch.testing.assert_close(other.up[name], one.up[name], rtol=1e-4, atol=ROUNDING)
        for name in one.state:
            torch.testing.assert_close(other.state[name], one.state[name], rtol=1e-4, atol=ROUNDING)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("algorithm", [FedAvg(), Scaffold()], ids=["fedavg", "scaffold"])
@pytest.mark.parametrize(("model", "backend"), [("logistic", "stacked"), ("cnn", "stacked"), ("cnn", "vmap")])
def test_cuda_graphs_lead_where_steps_lead(model: str, backend: Backend, algorithm: Algorithm) -> None:
    start = Layout.of(module := model_of(model, "cuda")).flatten(module)
    for settings in OPTIMIZERS.values():
        local = LocalSettings(**{"lr": 0.05, "batch_size": 5, **settings})
        taken = rounds(trainer_of(model, algorithm, local, backend, None, "cuda"), algorithm, start)
        same(taken, rounds(trainer_of(model, algorithm, local, backend, CudaGraphs(), "cuda"), algorithm, start))


@pytest.mark.parametrize("backend", ["stacked", "each"])
def test_a_machine_without_a_gpu_says_so(backend: Backend) -> None:
    with pytest.raises(InvalidExperiment, match=r"run.cuda_graphs: there are none on cpu"):
        choose_recording(True, torch.device("cpu"), backend)
    assert choose_recording(False, torch.device("cpu"), backend) is None


def test_lanes_one_by_one_are_not_recorded() -> None:
    with pytest.raises(InvalidExperiment, match=r"run.backend = vmap"):
        choose_recording(True, torch.device("cuda"), "each")
