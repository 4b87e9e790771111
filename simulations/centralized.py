"""Centralized training: one client with all data that trains on as many samples per round as a round's clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clients.lanes.choice import choose_backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms.base import DISPLACEMENT
from fedopt.algorithms.fedavg import FedAvg
from fedopt.data.batches import BatchPlan, plan_samples, samples_seen
from fedopt.data.step_counts import StepCounts
from fedopt.precision import Products
from fedopt.round.batchnorm import BatchNorms
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.round.loop import RoundWork
from fedopt.seeding import Purpose, stream
from fedopt.storage.tensor_file import read_tensors, write_tensors
from fedopt.task import Task
from fedopt.vectors.layout import Layout


@dataclass(frozen=True)
class CentralPlan:
    """The minibatches of all data in one place."""

    samples: int
    """How many there are."""
    sizes: Sequence[int]
    """The sample counts n_i of the federation's clients."""
    counts: StepCounts
    """Their numbers of steps."""

    def __call__(self, round_: int, clients: Sequence[int]) -> BatchPlan:
        """As many samples as these clients would see in this round."""
        local, seed = self.counts.local, self.counts.seed
        seen = sum(self._seen(client, round_) for client in clients)
        return plan_samples(self.samples, seen, local, stream(seed, Purpose.CENTRAL, round_))

    def _seen(self, client: int, round_: int) -> int:
        samples = self.sizes[client]
        return samples_seen(samples, self.counts.local, self.counts.at(samples, round_, client))


class CentralRun:
    """A centralized run beside a federated one. Implements `fedopt.runs.reference.Reference`.

    Its optimizer is reset each round, as a client's is by default, so that the only difference is how the data are
    spread.
    """

    def __init__(
        self,
        task: Task,
        counts: StepCounts,
        data: tuple[Tensor, Tensor],
        sizes: Sequence[int],
        *,
        products: Products = "full",
    ) -> None:
        """`sizes` are the sample counts n_i of the federation's clients, `counts` their numbers of steps."""
        self._everything = np.arange(len(data[1]))
        self._plan = CentralPlan(len(self._everything), sizes, counts)
        self._x = Layout.with_statistics(task.module).flatten(task.module)
        self._norms = BatchNorms.of("average", task.module, FedAvg())
        backend = choose_backend("auto", task, data[0], data[1]).backend
        # Its moments start at zero in every round, as a client's do by default.
        local = counts.local.model_copy(update={"state": "reset"})
        training = LocalTraining(task, FedAvg(), local, counts.seed, batchnorm="average")
        self._trainer = LaneTrainer(training, data, Execution(backend, 1, products))
        self._saved_round: int | None = None

    def divergence(self, x: Tensor, work: RoundWork) -> float | None:
        trained = [client for client in work.cohort if client not in work.left_out]
        job = Job(WorkOrder(0, None), self._everything, {}, plan=self._plan(work.round, trained))
        (result,) = self._trainer.train(Broadcast(work.round, self._x, factors=work.factors), [job])
        dx, norms = result.up[DISPLACEMENT], self._norms
        moved = norms.trained(self._x) + norms.trained(dx)
        self._x = norms.widened(moved, norms.statistics(dx)) if norms else moved
        length = torch.linalg.vector_norm(moved).item()
        return torch.linalg.vector_norm(norms.trained(x) - moved).item() / length if length > 0 else None

    def save(self, folder: Path, round_: int) -> None:
        folder.mkdir(exist_ok=True)
        write_tensors(_file(folder, round_), {"x": self._x}, {"round": round_})
        needed = {_file(folder, round_), _file(folder, round_ if self._saved_round is None else self._saved_round)}
        for file in folder.glob("*central-round-*"):
            if file not in needed:
                file.unlink()
        self._saved_round = round_

    def restore(self, folder: Path, round_: int) -> None:
        self._x = read_tensors(_file(folder, round_), {"x": self._x}, {"round": round_})["x"]
        self._saved_round = round_


def _file(folder: Path, round_: int) -> Path:
    return folder / f"central-round-{round_:06d}.safetensors"
