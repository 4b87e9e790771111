"""How many client steps a second: this engine against the plain loop, on the same work, interleaved.

Dirichlet(0.5) over 100 clients, 10 a round, one epoch, one thread. A and B take turns, so that a machine
that slows down slows both; ratios are of neighbouring turns.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from clients.training import Job, LaneTrainer
from fedopt.data.batches import plan_batches
from fedopt.data.partition import split_labels
from fedopt.experiment import Experiment
from fedopt.federation import WorkOrder
from fedopt.models.build import build_model
from fedopt.parameters import Layout
from fedopt.rounds import select_cohort
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from simulations.lanes import choose_lanes
from simulations.plain_loop import batches_of, train_plainly

SAMPLES, SHAPE, CLASSES = 6_000, (1, 28, 28), 10
"""Work of MNIST's shape; values do not matter to speed, so no download is needed."""


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    model: str
    batch: int
    optimizer: str
    engine: str
    lanes: int
    steps_per_second: float
    plain_steps_per_second: float
    ratio: float
    """Median over turns."""
    ratio_min: float
    ratio_max: float


def measure(
    model: str, batch: int, optimizer: str, *, algorithm: str = "fedavg", repeats: int = 5, rounds: int = 1
) -> Cell:
    """Median steps per second of both, and their ratio, over `repeats` turns after one to warm up."""
    local = {"optimizer": optimizer, "lr": 0.01, "epochs": 1, "batch_size": batch}
    if optimizer == "momentum":
        local |= {"optimizer": "sgd", "momentum": 0.9}
    experiment = Experiment(
        data={"clients": 100, "alpha": 0.5},
        model={"name": model},
        algorithm={"name": algorithm},
        local=local,
        run={"cohort": 10},
    )
    rng = stream(0, Purpose.DATA)
    labels = rng.integers(0, CLASSES, SAMPLES)
    x = torch.from_numpy(rng.standard_normal((SAMPLES, *SHAPE)).astype("float32"))
    y = torch.from_numpy(labels)
    parts = split_labels(labels, experiment.data, seed=0)
    module = build_model(experiment.model, SHAPE, CLASSES, seed=0)
    layout = Layout.of(module)
    flat = layout.flatten(module)
    task = Task(module)
    lanes = choose_lanes(module, x[:1], layout.size, batch, 10, "each")
    trainer = LaneTrainer(
        task, layout, experiment.algorithm, experiment.local, (x, y), seed=0, road="each", lanes=lanes
    )
    down = experiment.algorithm.sends_down(experiment.algorithm.server_keeps(flat))
    kept = experiment.algorithm.client_keeps(flat)
    cohorts = {number: select_cohort(100, 10, 0, number) for number in range(1, rounds + 1)}

    def plans(number: int, client: int) -> list[torch.Tensor]:
        plan = plan_batches(
            len(parts[client]), experiment.local, stream(0, Purpose.BATCHES, number, client)
        )
        return batches_of(plan, parts[client])

    def engine() -> None:
        for number, cohort in cohorts.items():
            by_size = sorted(cohort, key=lambda client: -len(parts[client]))
            for start in range(0, len(by_size), lanes):
                trainer.train(
                    [
                        Job(WorkOrder(number, client, None, flat, down), parts[client], kept)
                        for client in by_size[start : start + lanes]
                    ]
                )

    def plain() -> None:
        for number, cohort in cohorts.items():
            for client in cohort:
                train_plainly(module, experiment.local, x, y, plans(number, client))

    steps = sum(len(plans(number, client)) for number, cohort in cohorts.items() for client in cohort)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = [(_seconds(engine), _seconds(plain)) for _ in range(repeats + 1)][1:]
    finally:
        torch.set_num_threads(threads)
    ratios = [plainly / ours for ours, plainly in pairs]
    return Cell(
        model=model,
        batch=batch,
        optimizer=optimizer if algorithm == "fedavg" else algorithm,
        engine="each",
        lanes=lanes,
        steps_per_second=steps / statistics.median(ours for ours, _ in pairs),
        plain_steps_per_second=steps / statistics.median(plainly for _, plainly in pairs),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
    )


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
    }


def as_json(cells: list[Cell]) -> dict[str, object]:
    return {"cells": [asdict(cell) for cell in cells], "machine": machine()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
