"""Virtual clients: a federation on this machine that trains on lanes, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from clients.lanes.backends import Backend
from clients.lanes.recording import Record
from clients.lanes.state import ClientStates
from clients.lanes.training import Job, LaneTrainer
from fedopt.algorithms.base import Algorithm, names_up
from fedopt.drift.gradients import GRADIENT
from fedopt.optimizers.local import LocalSettings
from fedopt.precision import Products
from fedopt.round.federation import Score, Update, WorkOrder, payload
from fedopt.task import Task
from fedopt.vectors.layout import Layout, Vectors
from simulations.lane_groups import cost_of_stepping, side_by_side
from simulations.placement import client_by_client
from simulations.workers.pool import AHEAD, Crew, Desk, Errand, Piece
from simulations.workers.shared_memory import shared_rows


class VirtualFederation:
    """N clients that share one set of tensors by index. Implements `fedopt.round.federation.Federation`."""

    name = "embedded"

    def __init__(
        self,
        task: Task,
        algorithm: Algorithm,
        local: LocalSettings,
        data: tuple[Tensor, Tensor],
        parts: Sequence[np.ndarray],
        *,
        seed: int,
        lanes: int,
        cohort: int,
        workers: int = 1,
        backend: Backend = "each",
        products: Products = "full",
        record: Record | None = None,
        score: Callable[[Tensor], Sequence[Score]] = lambda x: (),
        memory_share: float | None = None,
    ) -> None:
        """`score` evaluates a model [P] on the clients' test shares; `lanes` are those of one worker; with `record`,
        steps are recorded and replayed.

        What clients keep lies on the disk if it could fill more than `memory_share` of the memory.
        """
        layout = Layout.of(task.module)
        data, self._parts = client_by_client(data, parts)
        self.samples: Sequence[int] = [len(part) for part in parts]
        self._score, self.lanes, self.workers = score, lanes, workers
        self.trains_ahead = workers > 1
        self._stepping = cost_of_stepping(layout.size, local.batch_size)
        self.like = x = layout.flatten(task.module)
        initial = algorithm.client_keeps(x)
        # For each client the version that counts; for those of a round that is not settled yet, and of the one that is
        # being trained, one more.
        rows = len(parts) + 2 * cohort
        stores = {name: shared_rows(rows, x, memory_share) for name in initial} if x.device.type == "cpu" else {}
        self.states = ClientStates(initial, stores)

        def make_trainer() -> LaneTrainer:
            return LaneTrainer(
                task,
                layout,
                algorithm,
                local,
                data,
                seed=seed,
                backend=backend,
                lanes=lanes,
                products=products,
                record=record,
            )

        if workers == 1:
            self._trainer = make_trainer()
        else:
            down = list(algorithm.sends_down(algorithm.server_keeps(x)))
            desk = Desk.lay_out(x, down, [*names_up(algorithm), GRADIENT], AHEAD * lanes * workers)
            self._crew = Crew(workers, lanes, desk, stores, initial, self._parts, make_trainer)

    def train(self, orders: Sequence[WorkOrder]) -> Generator[Update, None, None]:
        groups = side_by_side(orders, self.samples, self.lanes, self.workers, self._stepping)
        yield from self._in_this_process(groups) if self.workers == 1 else self._in_workers(groups)

    def _in_this_process(self, groups: Sequence[Sequence[WorkOrder]]) -> Generator[Update, None, None]:
        for group in groups:
            jobs = [
                Job(order, self._parts[order.client], self.states.at(order.client, order.accepted)) for order in group
            ]
            for result in self._trainer.train(jobs):
                order = result.order
                self.states.put(order.client, order.round, result.keep)
                yield _update(order, result.samples, result.steps, result.loss, result.up, result.told)

    def _in_workers(self, groups: Sequence[Sequence[WorkOrder]]) -> Generator[Update, None, None]:
        order_of = {order.client: order for group in groups for order in group}
        room = {client: self.states.room() for client in order_of}
        pieces = [
            Piece(number, group[0].round, group[0].gradient, tuple(self._errand(order, room) for order in group))
            for number, group in enumerate(groups)
        ]
        try:
            for report, up in self._crew.carry_out(groups[0][0], pieces):
                order = order_of[report.client]
                self.states.adopt(order.client, order.round, room.pop(order.client))
                yield _update(order, report.samples, report.steps, report.loss, up, report.told)
        finally:
            for unused in room.values():
                self.states.give_back(unused)

    def _errand(self, order: WorkOrder, room: Mapping[int, Vectors]) -> Errand:
        kept = self.states.at(order.client, order.accepted)
        return Errand(
            client=order.client,
            accepted=order.accepted,
            kept=self.states.rows(kept) if order.accepted is not None else {},
            keep=self.states.rows(room[order.client]),
        )

    def evaluate(self, x: Tensor, round_: int) -> Sequence[Score]:
        return self._score(x)

    def mean_kept(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> Vectors:
        return self.states.mean(accepted, share_of)

    def refused(self, client: int) -> None:
        """Nothing: every client has answered, or will."""

    def settle(self, accepted: Mapping[int, int], ahead: bool = False) -> None:
        self.states.settle(accepted, ahead)

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.save(folder, accepted)

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.prune(folder, accepted)

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.restore(folder, accepted)

    def close(self) -> None:
        """Ends the worker processes, if there are any."""
        if self.workers > 1:
            self._crew.dismiss()


def _update(order: WorkOrder, samples: int, steps: int, loss: float, up: Vectors, told: Mapping[str, float]) -> Update:
    return Update(
        round=order.round,
        client=order.client,
        samples=samples,
        steps=steps,
        loss=loss,
        up=up,
        bytes_down=payload({"x": order.x}, order.down),
        bytes_up=payload(up),
        told=told,
    )
