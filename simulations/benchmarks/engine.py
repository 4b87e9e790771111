"""Client steps per second: this engine and the plain loop, on the same work, in turns.

Dirichlet(0.5) over 100 clients, 10 per round, one epoch: whole rounds, with averaging on both sides. The plain loop
has one thread, as in a user's script; the engine has its workers, of one thread each. Turns of both have about the same
length, so that a slow phase of the machine slows both, and ratios are of consecutive turns. For models with
convolutions the plain loop runs with oneDNN on and off, and the faster counts; a clearly slower one runs only once.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clients.lanes.backends import Backend
from clients.lanes.choice import choose_backend
from clients.lanes.training import Execution, LocalTraining
from fedopt.algorithms.base import shares
from fedopt.data.batches import plan_batches
from fedopt.data.partition import split_labels
from fedopt.data.step_counts import StepCounts
from fedopt.device import choose_device, threads
from fedopt.drift.layers import Layers
from fedopt.drift.measuring import NO_MEASURES, MeasurePlan
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.optimizers.sam import Sam
from fedopt.precision import Products
from fedopt.round.loop import Rounds, Rules
from fedopt.round.selection import Terms, select_cohort
from fedopt.round.state import ServerState
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.benchmarks.choices import CLIENTS, COHORT, OPTIMIZERS
from simulations.benchmarks.plain_loop import batches_of, sam_plainly, scaffold_plainly, train_plainly
from simulations.sizing import choose_lanes, choose_recording, choose_workers
from simulations.virtual import Resources, VirtualFederation

SAMPLES, SHAPE, CLASSES = 60_000, (1, 28, 28), 10
"""The size and shape of MNIST. Values do not affect speed, so they are random and no file is needed."""

CLEARLY = 1.5
"""A plain loop whose first turn takes so many times as long as the other's is not run again."""

LONGEST_TURN = 50
"""The most rounds of the engine in a turn."""


@dataclass(frozen=True)
class Setting:
    """The device and cohort of both sides, and settings of the engine."""

    device: str = "cpu"
    cohort: int = COHORT
    products: Products = "full"
    cuda_graphs: bool = False


ORDINARY = Setting()


@dataclass(frozen=True)
class Cell:
    """One model, batch size and optimizer: a line of the printed table."""

    model: str
    batch: int
    optimizer: str
    engine: str
    workers: int
    lanes: int
    steps_per_second: float
    plain_steps_per_second: float
    ratio: float
    """Median over turns."""
    ratio_min: float
    ratio_max: float
    peers: dict[str, float]
    """The engine's speed as a multiple of each peer's."""
    setting: Setting = ORDINARY


def experiment_of(model: str, batch: int, optimizer: str, setting: Setting = ORDINARY, epochs: int = 1) -> Experiment:
    """The experiment that is measured."""
    sections = OPTIMIZERS[optimizer]
    return Experiment(
        data={"clients": CLIENTS, "alpha": 0.5},
        model={"name": model},
        algorithm=sections.get("algorithm", {"name": "fedavg"}),
        local={"lr": 0.01, "epochs": epochs, "batch_size": batch, **sections.get("local", {})},
        run=asdict(setting),
    )


class Bench:
    """One round of the same work, by the engine or by the plain loop."""

    def __init__(
        self,
        model: str,
        batch: int,
        optimizer: str,
        epochs: int = 1,
        *,
        setting: Setting = ORDINARY,
        workers: int | Literal["auto"] = "auto",
        backend: Backend | Literal["auto"] = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.experiment = experiment_of(model, batch, optimizer, setting, epochs)
        run = self.experiment.run
        self.device = choose_device(run.device)
        self.model, self.scaffold = model, optimizer == "scaffold"
        rng = stream(0, Purpose.DATA)
        labels = rng.integers(0, CLASSES, SAMPLES)
        self.x = torch.from_numpy(rng.standard_normal((SAMPLES, *SHAPE)).astype("float32"))
        self.x, self.y = self.x.to(self.device, dtype), torch.from_numpy(labels).to(self.device)
        self.parts = split_labels(labels, self.experiment.data, seed=0)
        self.share_of = shares("samples", [len(part) for part in self.parts])
        self.module = build_model(self.experiment.model, SHAPE, CLASSES, seed=0).to(self.device, dtype)
        self.layout = Layout.of(self.module)
        task = Task(self.module)
        longest = max(len(part) for part in self.parts)
        self.backend = choose_backend(backend, task, self.x, self.y).backend
        self.workers = choose_workers(workers, self.experiment, self.x.device)
        self.lanes = choose_lanes(task, self.experiment, self.x[:1], longest, self.workers)
        self.federation = VirtualFederation(
            LocalTraining(task, self.experiment.algorithm, self.experiment.local, 0, self.experiment.server),
            (self.x, self.y),
            self.parts,
            Execution(
                self.backend,
                self.lanes,
                run.products,
                record=choose_recording(run.cuda_graphs, self.device, self.backend),
            ),
            Resources(setting.cohort, self.workers),
        )
        self.state = ServerState.initial(self.layout.flatten(self.module), self.experiment.method)
        self.cohort = select_cohort(len(self.parts), setting.cohort, seed=0, round_=1)
        self._plan = NO_MEASURES
        rules = Rules(Terms.all_of(setting.cohort), seed=0)
        self._rounds = Rounds(self.experiment.method, self.federation, rules, lambda round_: self._plan)
        self.steps = sum(len(self.batches(client)) for client in self.cohort)

    def close(self) -> None:
        self.federation.close()

    @property
    def convolutional(self) -> bool:
        return any(isinstance(layer, nn.Conv2d) for layer in self.module.modules())

    def batches(self, client: int) -> list[Tensor]:
        rng = stream(0, Purpose.BATCHES, 1, client)
        samples, counts = len(self.parts[client]), StepCounts.of(self.experiment.algorithm, self.experiment.local, 0)
        plan = plan_batches(samples, self.experiment.local, rng, counts.at(samples, 1, client))
        return [batch.to(self.device) for batch in batches_of(plan, self.parts[client])]

    def by_engine(self, plan: MeasurePlan = NO_MEASURES) -> Tensor:
        """The model after the round, [P]; nothing is measured unless `plan` says so."""
        self._plan = plan
        state, _ = self._rounds.play_one(self.state)
        self.federation.commit(self.state.accepted)
        return state.x

    @property
    def layers(self) -> Layers:
        return Layers.of(self.layout)

    def by_plain_loop(self) -> Tensor:
        """The same round by nn.Module, torch.optim and a running weighted mean."""
        mean = [torch.zeros_like(parameter) for parameter in self.module.parameters()]
        controls = [torch.zeros_like(parameter) for parameter in self.module.parameters()]
        total = sum(self.share_of[client] for client in self.cohort)
        for client in self.cohort:
            trained, control = self._train_plainly(client)
            with torch.no_grad():
                for sum_, parameter in zip(mean, trained.parameters(), strict=True):
                    sum_.add_(parameter, alpha=self.share_of[client] / total)
                for sum_, part in zip(controls, control, strict=False):
                    sum_.add_(part, alpha=self.share_of[client])
        return torch.cat([parameter.reshape(-1) for parameter in mean])

    def _train_plainly(self, client: int) -> tuple[nn.Module, list[Tensor]]:
        work = self.module, self.experiment.local, self.x, self.y, self.batches(client)
        if self.scaffold:
            zeros = [torch.zeros_like(parameter) for parameter in self.module.parameters()]
            return scaffold_plainly(*work, c=zeros, c_i=zeros)
        return (sam_plainly if isinstance(self.experiment.local.optimizer, Sam) else train_plainly)(*work), []

    def without_onednn(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # setting the flags warns about Intel GPUs
            with torch.backends.mkldnn.flags(enabled=False):
                return self.by_plain_loop()


Peer = Callable[[Bench], float]
"""Another implementation of the bench's work; returns its client steps per second."""


def measure(
    model: str,
    batch: int,
    optimizer: str,
    repeats: int = 5,
    peers: dict[str, Peer] | None = None,
    setting: Setting = ORDINARY,
) -> Cell:
    """Median steps per second of both, and their ratio, over `repeats` turns after one to warm up."""
    with closing(Bench(model, batch, optimizer, setting=setting)) as bench, threads(1):
        two_ways = bench.convolutional and bench.device.type == "cpu"
        rivals = [bench.by_plain_loop, *([bench.without_onednn] if two_ways else [])]
        if bench.device.type != "cpu":
            bench.by_plain_loop()  # the first call loads the GPU's libraries
        first = [seconds_of(rival) for rival in rivals]
        rivals = [rival for rival, seconds in zip(rivals, first, strict=True) if seconds < CLEARLY * min(first)]
        bench.by_engine()
        rounds = max(1, min(LONGEST_TURN, round(min(first) / seconds_of(bench.by_engine))))

        def turn() -> float:
            return seconds_of(lambda: [bench.by_engine() for _ in range(rounds)]) / rounds

        turns = [(turn(), [seconds_of(rival) for rival in rivals]) for _ in range(repeats + 1)][1:]
        engine = bench.steps / statistics.median(ours for ours, _ in turns)
        found = {name: round(engine / peer(bench), 2) for name, peer in (peers or {}).items()}
        medians = [statistics.median(times[rival] for _, times in turns) for rival in range(len(rivals))]
        faster = medians.index(min(medians))
        ratios = [times[faster] / ours for ours, times in turns]
        return Cell(
            model=model,
            batch=batch,
            optimizer=optimizer,
            engine=bench.backend,
            workers=bench.workers,
            lanes=bench.lanes,
            steps_per_second=engine,
            plain_steps_per_second=bench.steps / medians[faster],
            ratio=statistics.median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
            peers=found,
            setting=setting,
        )


def machine(device: str = "cpu") -> dict[str, str | int]:
    """The machine and versions of the measurement."""
    about: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
    }
    return about | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def as_json(cells: Sequence[Cell]) -> dict[str, object]:
    return {"cells": [asdict(cell) for cell in cells], "machine": machine(cells[0].setting.device if cells else "cpu")}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of one call; waits until a GPU has finished it."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
