"""Virtual clients: a federation inside this process, whose clients train side by side on lanes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from clients.gradients import Road
from clients.state import ClientStates
from clients.training import Job, LaneTrainer
from fedopt.algorithms.base import Algorithm
from fedopt.federation import Score, Update, WorkOrder, payload
from fedopt.optimizers.settings import LocalSettings
from fedopt.parameters import Layout, Vectors
from fedopt.task import Task


class VirtualFederation:
    """N clients that share one set of tensors by index. Implements `fedopt.federation.Federation`."""

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
        road: Road = "each",
        score: Callable[[Tensor], Sequence[Score]] = lambda x: (),
    ) -> None:
        """`score` evaluates a model [P] on the clients' test shares."""
        layout = Layout.of(task.module)
        self._parts, self._lanes, self._score = parts, lanes, score
        self.states = ClientStates(algorithm.client_keeps(layout.flatten(task.module)))
        self._trainer = LaneTrainer(
            task,
            layout,
            algorithm,
            local,
            data,
            seed=seed,
            road=road,
            lanes=lanes,
        )

    @property
    def samples(self) -> Sequence[int]:
        return [len(part) for part in self._parts]

    def train(self, orders: Sequence[WorkOrder]) -> Generator[Update, None, None]:
        # Clients of like size side by side: lanes then finish together.
        by_size = sorted(orders, key=lambda order: (-len(self._parts[order.client]), order.client))
        for start in range(0, len(by_size), self._lanes):
            jobs = [
                Job(order, self._parts[order.client], self.states.at(order.client, order.accepted))
                for order in by_size[start : start + self._lanes]
            ]
            for result in self._trainer.train(jobs):
                order = result.order
                self.states.put(order.client, order.round, result.keep)
                yield Update(
                    round=order.round,
                    client=order.client,
                    samples=result.samples,
                    steps=result.steps,
                    loss=result.loss,
                    up=result.up,
                    bytes_down=payload({"x": order.x}, order.down),
                    bytes_up=payload(result.up),
                    told=result.told,
                )

    def evaluate(self, x: Tensor, round_: int) -> Sequence[Score]:
        return self._score(x)

    def mean_kept(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> Vectors:
        return self.states.mean(accepted, share_of)

    def settle(self, accepted: Mapping[int, int]) -> None:
        self.states.settle(accepted)

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.save(folder, accepted)

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.prune(folder, accepted)

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self.states.restore(folder, accepted)
