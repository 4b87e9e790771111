"""Virtual clients: a federation on this machine that trains on lanes, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from clients.lanes.sending import SendingTrainer
from clients.lanes.state import ClientStates
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining, Result
from fedopt.channel.channel import NO_STAGES, Channel, payload_bytes
from fedopt.data.batches import BatchPlan
from fedopt.drift.gradients import GRADIENT
from fedopt.optimizers.moments import Moments
from fedopt.round.batchnorm import BatchNorms
from fedopt.round.federation import Broadcast, Numbers, Score, Update, WorkOrder
from fedopt.round.method import Method
from fedopt.vectors.layout import Layout, Vectors
from simulations.lane_groups import cost_of_stepping, side_by_side
from simulations.placement import client_by_client
from simulations.workers.pool import AHEAD, ClientTask, SharedBuffers, TaskGroup, WorkerPool
from simulations.workers.shared_memory import shared_rows

PersonalModels = Callable[[int], Tensor]
"""The model [P] of a client, by its number."""

Evaluate = Callable[[Tensor, "PersonalModels | None"], Sequence[Score]]
"""Scores of a model [P], or of each client's own, on the clients' test shares."""


@dataclass(frozen=True)
class Resources:
    """The processes and the memory of a federation of virtual clients. They change no result."""

    cohort: int
    """Clients a round."""
    workers: int = 1
    memory_share: float | None = None
    """Client states lie on the disk if they could fill more than this share of the memory; None for the default."""


class VirtualFederation:
    """N clients that share one set of tensors by index. Implements `fedopt.round.federation.Federation`."""

    name = "embedded"

    def __init__(
        self,
        training: LocalTraining,
        data: tuple[Tensor, Tensor],
        parts: Sequence[np.ndarray],
        execution: Execution,
        resources: Resources,
        *,
        channel: Channel = NO_STAGES,
        evaluate: Evaluate = lambda x, personal: (),
        plan: Callable[[int], BatchPlan] | None = None,
    ) -> None:
        """`parts` are each client's samples in `data`; the lanes of `execution` are those of one worker. `plan` gives
        the minibatches of a round where they are not those that its number and the client's stand for; it takes one
        worker."""
        layout = Layout.with_statistics(training.task.module)
        data, self._parts = client_by_client(data, parts)
        self.samples: Sequence[int] = [len(part) for part in parts]
        self._evaluate, self.lanes, self.workers = evaluate, execution.lanes, resources.workers
        self._plan = plan
        self.trains_ahead = self.workers > 1
        self._stepping = cost_of_stepping(layout.size, training.local.batch_size)
        self.like = x = layout.flatten(training.task.module)
        algorithm, moments = training.algorithm, Moments.of(training.local)
        norms = BatchNorms.of(training.batchnorm, training.task.module, algorithm)
        self._method = method = Method(algorithm, channel, moments=moments, norms=norms)
        initial = method.client_state(x)
        # For each client the version that counts; for those of a round that is not committed yet, and of the one that
        # is being trained, one more.
        rows = len(parts) + 2 * resources.cohort
        share = resources.memory_share
        stores = {name: shared_rows(rows, x, share) for name in initial} if x.device.type == "cpu" else {}
        self.states = ClientStates(initial, stores)

        def make_trainer() -> SendingTrainer:
            return SendingTrainer(LaneTrainer(training, data, execution), channel, training.seed)

        if self.workers == 1:
            self._trainer = make_trainer()
        else:
            down, slots = method.names_down(x), AHEAD * self.lanes * self.workers
            buffers = SharedBuffers.allocate(x, down, [*method.sends_up, GRADIENT], slots, stores)
            self._pool = WorkerPool(self.workers, self.lanes, buffers, initial, self._parts, make_trainer)

    def train(self, broadcast: Broadcast, orders: Sequence[WorkOrder]) -> Generator[Update, None, None]:
        groups = side_by_side(orders, self.samples, self.lanes, self.workers, self._stepping)
        train = self._in_this_process if self.workers == 1 else self._in_workers
        yield from train(broadcast, groups)

    def _in_this_process(
        self, broadcast: Broadcast, groups: Sequence[Sequence[WorkOrder]]
    ) -> Generator[Update, None, None]:
        for group in groups:
            plan = None if self._plan is None else self._plan(broadcast.round)
            jobs = [
                Job(order, self._parts[order.client], self.states.at(order.client, order.accepted), plan=plan)
                for order in group
            ]
            for delivered in self._trainer.deliver(broadcast, jobs):
                result = delivered.result
                if not broadcast.survey:
                    self.states.put(result.order.client, broadcast.round, result.state)
                yield _update(broadcast, result.order, result.numbers, result.up, delivered.bytes_up)

    def led_to(self, broadcast: Broadcast, order: WorkOrder) -> tuple[Result, Tensor]:
        """What an order would make of the client, as it is before it sends anything, and the model [P + S] of the
        client then; nothing of it stays. It takes one worker, and an order that is no survey."""
        state = self.states.at(order.client, order.accepted)
        return self._trainer.led_to(broadcast, Job(order, self._parts[order.client], state))

    def _in_workers(self, broadcast: Broadcast, groups: Sequence[Sequence[WorkOrder]]) -> Generator[Update, None, None]:
        survey = broadcast.survey
        buffers: dict[int, dict[str, Tensor]] = {
            order.client: {} if survey else self.states.buffers() for group in groups for order in group
        }
        task_groups = [
            TaskGroup(
                number,
                broadcast.round,
                broadcast.gradient,
                survey,
                broadcast.factors,
                tuple(self._task(order, buffers) for order in group),
            )
            for number, group in enumerate(groups)
        ]
        try:
            for report, up in self._pool.carry_out(broadcast, task_groups):
                client = report.order.client
                self.states.adopt(client, broadcast.round, buffers.pop(client))
                yield _update(broadcast, report.order, report.numbers, up, report.bytes_up)
        finally:
            for unused in buffers.values():
                self.states.release(unused)

    def _task(self, order: WorkOrder, buffers: Mapping[int, Vectors]) -> ClientTask:
        state = self.states.at(order.client, order.accepted)
        rows = self.states.rows(state) if order.accepted is not None else {}
        return ClientTask(order, rows, self.states.rows(buffers[order.client]))

    @property
    def is_personal(self) -> bool:
        """Whether clients use models of their own."""
        return self._method.is_personal

    def evaluate(self, x: Tensor, round_: int, accepted: Mapping[int, int]) -> Sequence[Score]:
        def personal(client: int) -> Tensor:
            return self._method.personal(x, self.states.at(client, accepted.get(client)))

        return self._evaluate(x, personal if self._method.is_personal else None)

    def mean_state(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> Vectors:
        return self.states.mean(accepted, share_of)

    def refused(self, client: int) -> None:
        """Does nothing: every client has answered, or will."""

    def commit(self, accepted: Mapping[int, int], ahead: bool = False) -> None:
        self.states.commit(accepted, ahead)

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.save(folder, accepted)

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.prune(folder, accepted)

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.restore(folder, accepted)

    def close(self) -> None:
        """Ends the worker processes, if there are any."""
        if self.workers > 1:
            self._pool.close()


def _update(broadcast: Broadcast, order: WorkOrder, numbers: Numbers, up: Vectors, bytes_up: int) -> Update:
    return Update(
        round=broadcast.round,
        client=order.client,
        numbers=numbers,
        up=up,
        bytes_down=payload_bytes({"x": broadcast.x}, broadcast.down),
        bytes_up=bytes_up,
    )
