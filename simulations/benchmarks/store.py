"""The cost of SCAFFOLD's controls on disk: rounds with the controls in a file and in memory, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from clients.lanes.choice import choose_backend
from clients.lanes.training import Execution, LocalTraining
from fedopt.device import threads
from fedopt.errors import RunStopped
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.round.loop import Rounds, Rules
from fedopt.round.selection import Terms
from fedopt.round.state import ServerState
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.benchmarks.engine import CLASSES, SAMPLES, SHAPE, seconds_of
from simulations.sizing import choose_lanes, choose_workers
from simulations.virtual import Resources, VirtualFederation

MEMORY, DISK = 1e9, 0.0
"""The share of the memory that controls may fill: everything stays in memory, or everything goes to disk."""


@dataclass(frozen=True)
class Stored:
    """The measurements of both."""

    clients: int
    cohort: int
    parameters: int
    samples: int
    """Samples of each client."""
    gib: float
    """Size of all clients' controls at the end."""
    in_memory: float
    """Median seconds of a round."""
    on_disk: float
    """Median seconds of a round."""
    ratio: float
    """Median over rounds of the time on disk divided by the time in memory."""
    ratio_min: float
    ratio_max: float


class _Arm:
    """One of the two federations: SCAFFOLD, MLP 200-200, one epoch in batches of ten."""

    def __init__(self, clients: int, cohort: int, samples: int, share: float) -> None:
        experiment = Experiment(
            data={"clients": clients},
            model={"name": "mlp"},
            algorithm={"name": "scaffold"},
            local={"lr": 0.01, "epochs": 1, "batch_size": 10},
            run={"cohort": cohort},
        )
        rng = stream(0, Purpose.DATA)
        x = torch.from_numpy(rng.standard_normal((SAMPLES, *SHAPE), dtype=np.float32))
        y = torch.from_numpy(rng.integers(0, CLASSES, SAMPLES))
        # Clients share samples if there are not enough for all.
        parts = [(client * samples + np.arange(samples)) % SAMPLES for client in range(clients)]
        module = build_model(experiment.model, SHAPE, CLASSES, seed=0)
        task = Task(module)
        workers = choose_workers("auto", experiment, x.device)
        self.federation = VirtualFederation(
            LocalTraining(task, experiment.algorithm, experiment.local, 0, experiment.server),
            (x, y),
            parts,
            Execution(
                choose_backend("auto", task, x, y).backend, choose_lanes(task, experiment, x[:1], samples, workers)
            ),
            Resources(cohort, workers, memory_share=share),
        )
        self.state = ServerState.initial(Layout.of(module).flatten(module), experiment.method)
        self._rounds = Rounds(experiment.method, self.federation, Rules(Terms.all_of(cohort), seed=0))

    def play(self) -> None:
        self.state, _ = self._rounds.play_one(self.state)
        self.federation.commit(self.state.accepted)


@contextmanager
def _arm(clients: int, cohort: int, samples: int, share: float) -> Iterator[_Arm]:
    arm = _Arm(clients, cohort, samples, share)
    with closing(arm.federation):
        yield arm


def measure(clients: int, cohort: int, samples: int, rounds: int) -> Stored:
    """Measures `rounds` rounds of each after one to warm up. Raises RunStopped if the models are not bit-identical."""
    with threads(1), _arm(clients, cohort, samples, MEMORY) as memory, _arm(clients, cohort, samples, DISK) as disk:
        pairs = [(seconds_of(memory.play), seconds_of(disk.play)) for _ in range(rounds + 1)][1:]
        if not memory.state.x.equal(disk.state.x):
            raise RunStopped("the model is another one with controls on the disk than with controls in memory")
        ratios = [on_disk / in_memory for in_memory, on_disk in pairs]
        parameters = memory.state.x.numel()
        return Stored(
            clients=clients,
            cohort=cohort,
            parameters=parameters,
            samples=samples,
            gib=round(len(memory.state.accepted) * parameters * 4 / 2**30, 2),
            in_memory=statistics.median(in_memory for in_memory, _ in pairs),
            on_disk=statistics.median(on_disk for _, on_disk in pairs),
            ratio=statistics.median(ratios),
            ratio_min=min(ratios),
            ratio_max=max(ratios),
        )
