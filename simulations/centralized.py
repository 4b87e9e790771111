"""A centralized run beside a federated one: one client with all data that trains on as many samples per round.

Its optimizer is reset each round, as a client's is, so that the only difference is how the data are spread.
Implements `fedopt.runs.reference.Reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.round.loop import RoundWork
from fedopt.seeding import Purpose, stream
from fedopt.storage.tensor_file import read_tensors, write_tensors
from fedopt.task import Task
from fedopt.vectors.layout import Layout


class CentralRun:
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
        self._local, self._seed = counts.local, counts.seed
        self._counts, self._sizes = counts, sizes
        self._everything = np.arange(len(data[1]))
        self._x = Layout.of(task.module).flatten(task.module)
        backend = choose_backend("auto", task, data[0], data[1]).backend
        # Its moments start at zero in every round, as a client's do by default.
        training = LocalTraining(task, FedAvg(), counts.local.model_copy(update={"state": "reset"}), counts.seed)
        self._trainer = LaneTrainer(training, data, Execution(backend, 1, products))
        self._saved_round: int | None = None

    def divergence(self, x: Tensor, work: RoundWork) -> float | None:
        trained = [client for client in work.cohort if client not in work.left_out]
        samples = sum(self._seen(client, work.round) for client in trained)
        job = Job(WorkOrder(0, None), self._everything, {}, plan=self._plan(work.round, samples))
        (result,) = self._trainer.train(Broadcast(work.round, self._x), [job])
        self._x = self._x + result.up[DISPLACEMENT]
        length = torch.linalg.vector_norm(self._x).item()
        return torch.linalg.vector_norm(x - self._x).item() / length if length > 0 else None

    def _seen(self, client: int, round_: int) -> int:
        samples = self._sizes[client]
        return samples_seen(samples, self._local, self._counts.at(samples, round_, client))

    def _plan(self, round_: int, samples: int) -> BatchPlan:
        return plan_samples(len(self._everything), samples, self._local, stream(self._seed, Purpose.CENTRAL, round_))

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
