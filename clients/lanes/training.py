"""Local training on lanes: the one place where clients learn, on every engine.

A deployed client is one lane; a simulation trains as many side by side as pay. What a client learns does not
depend on which lanes ran beside it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clients.lanes.backends import Backend, check_products, lane_gradients
from clients.lanes.batches import LaneBatches, lane_width
from clients.lanes.draws import LaneDraws, Pass
from clients.lanes.recording import Record
from clients.lanes.steps import LocalSteps
from clients.stacked.products import in_one_thread, rounding
from fedopt.algorithms.base import Algorithm, LocalWork
from fedopt.data.batches import BatchPlan, plan_batches
from fedopt.drift.gradients import GRADIENT
from fedopt.optimizers.local import LocalSettings
from fedopt.precision import Products, on_gpu
from fedopt.round.federation import WorkOrder
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout, Vectors

PASS_WIDTH = {"stacked": 64, "each": 256, "vmap": 64}
"""Samples a lane reads at once in a pass over all of a client's data; padding costs where lanes have one width."""


@dataclass(frozen=True)
class Job:
    """One client's work in one round."""

    order: WorkOrder
    indices: np.ndarray
    """The client's samples in the trainer's tensors."""
    kept: Vectors
    """What the client kept from its last accepted round, [P] each."""
    desk: Vectors = field(default_factory=dict)
    shelf: Vectors = field(default_factory=dict)
    """Where what it sends up, and what it keeps from now on, shall be written, [P] each; a vector that has no place
    here is a new tensor."""
    plan: BatchPlan | None = None
    """The minibatches of the round, where they are not those that the order's round and client stand for."""


@dataclass(frozen=True)
class Result:
    """What a job came to; vectors are [P], rows of what the lanes computed together."""

    order: WorkOrder
    samples: int
    steps: int
    loss: float
    up: Vectors
    keep: Vectors
    told: Mapping[str, float]


class LaneTrainer:
    """Trains clients on lanes over one set of tensors."""

    def __init__(
        self,
        task: Task,
        layout: Layout,
        algorithm: Algorithm,
        local: LocalSettings,
        data: tuple[Tensor, Tensor],
        *,
        seed: int,
        backend: Backend,
        lanes: int,
        products: Products = "full",
        record: Record | None = None,
    ) -> None:
        """`data` are samples and targets; with `record`, steps are recorded and replayed."""
        check_products(products, backend, data[0])
        task.module.train()
        self._draws = LaneDraws(seed, data[0].device) if task.draws else None
        self._algorithm, self._local, self._seed = algorithm, local, seed
        self._backend, self._products = backend, products
        self._x, self._y = data
        # On a GPU many narrow groups cost more than padding, and the last bit is not promised.
        self._one_width = backend == "stacked" or (backend == "vmap" and local.batch_size != "full")
        self._pass_width = PASS_WIDTH[backend]
        like = next(p for p in task.module.parameters() if p.requires_grad).detach()
        self._gradients = lane_gradients(backend, task, layout, like, lanes, self._draws)
        self._steps = LocalSteps(self._gradients, algorithm, local, record)

    def train(self, jobs: Sequence[Job]) -> list[Result]:
        """Carries out jobs of one round side by side, at most as many as there are lanes."""
        with in_one_thread(), rounding(self._products), on_gpu(self._products), self._autocast():
            return self._train(jobs)

    def _autocast(self) -> AbstractContextManager[object]:
        """What rounds the operands of autograd's products. No cast is remembered: parameters change in place."""
        if self._products != "bf16" or self._backend == "stacked":
            return nullcontext()
        return torch.autocast(self._x.device.type, torch.bfloat16, cache_enabled=False)

    def _train(self, jobs: Sequence[Job]) -> list[Result]:
        jobs = sorted(jobs, key=lambda job: (-len(job.indices), job.order.client))
        groups: dict[int | None, list[Job]] = {}
        for job in jobs:
            width = lane_width(len(job.indices), self._local.batch_size) if self._one_width else None
            groups.setdefault(width, []).append(job)
        return [result for width, group in groups.items() for result in self._side_by_side(group, width)]

    def _side_by_side(self, jobs: list[Job], width: int | None) -> list[Result]:
        """Jobs by falling sample count, whose batches are padded to one width if it is given."""
        order, algorithm, packing = jobs[0].order, self._algorithm, self._gradients.packing
        theta = self._gradients.theta[: len(jobs)]
        x, down = packing.pack(order.x), packing.pack_all(order.down)
        theta.copy_(x)
        kept = {name: packing.pack_each([job.kept[name] for job in jobs]) for name in jobs[0].kept}
        batches = self._batches(jobs, [self._plan(job) for job in jobs], width)

        self._gradients.losses()  # those of a round that failed under way are nobody's
        local = algorithm.begin(x, down, kept)
        if self._draws is not None:
            self._draws.begin(order.round, [job.order.client for job in jobs], Pass.STEPS)
        way = self._steps.take(batches, len(jobs), local, x, order.round)

        steps = batches.steps_of_lanes
        taken = theta.new_tensor(steps)[:, None]
        displacement = theta - x if way.displacement is None else way.displacement.clone()
        mean_gradient = None
        if way.gradients is not None:
            mean_gradient = way.gradients / taken
        elif way.displacement is not None:
            mean_gradient = _mean_gradient_of_descent(displacement, way.rates[:, None], algorithm.shift(local))
        losses = self._gradients.losses()[: len(jobs)].tolist()
        full_gradient = functools.cache(lambda: self._full_gradient(x, jobs))
        work = LocalWork(
            x=x,
            y=theta,
            displacement=displacement,
            kept=kept,
            mean_gradient=mean_gradient,
            full_gradient=full_gradient,
            down=down,
            began=local,
        )
        finished = algorithm.finish(work)
        sent = {**finished.up, GRADIENT: full_gradient()} if order.gradient else finished.up
        up = self._hand_over(sent, [job.desk for job in jobs])
        keep = self._hand_over(finished.keep, [job.shelf for job in jobs])
        known = full_gradient() if full_gradient.cache_info().currsize else None
        told = {name: numbers.tolist() for name, numbers in algorithm.tell(work, known).items()}
        return [
            Result(
                order=job.order,
                samples=len(job.indices),
                steps=steps[lane],
                loss=losses[lane] / steps[lane],
                up=up[lane],
                keep=keep[lane],
                told={name: numbers[lane] for name, numbers in told.items() if math.isfinite(numbers[lane])},
            )
            for lane, job in enumerate(jobs)
        ]

    def _hand_over(self, rows: Vectors, places: Sequence[Vectors]) -> list[dict[str, Tensor]]:
        """For each lane the flat vectors in its row of each of `rows`, where there is a place for them."""
        packing = self._gradients.packing
        found: list[dict[str, Tensor]] = [{} for _ in places]
        for name, lanes in rows.items():
            flat = None if all(name in place for place in places) else packing.unpack(lanes)
            for lane, place in enumerate(places):
                if flat is None:
                    packing.unpack_into(place[name], lanes[lane])
                found[lane][name] = place[name] if flat is None else flat[lane]
        return found

    def _batches(self, jobs: Sequence[Job], plans: Sequence[BatchPlan], width: int | None) -> LaneBatches:
        indices = [job.indices for job in jobs]
        return LaneBatches(self._x, self._y, indices, plans, self._gradients.theta.dtype, width)

    def _plan(self, job: Job) -> BatchPlan:
        if job.plan is not None:
            return job.plan
        rng = stream(self._seed, Purpose.BATCHES, job.order.round, job.order.client)
        return plan_batches(len(job.indices), self._local, rng)

    def _full_gradient(self, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        """Gradients at x over all data of each job's client, [lanes, Q]; jobs by falling sample count."""
        theta = self._gradients.theta[: len(jobs)]
        where_steps_led = theta.clone()
        theta.copy_(x)
        width = self._pass_width
        plans = [_one_pass(len(job.indices), width) for job in jobs]
        batches = self._batches(jobs, plans, width)
        if self._draws is not None:
            self._draws.begin(jobs[0].order.round, [job.order.client for job in jobs], Pass.FULL_GRADIENT)
        total = x.new_zeros(len(jobs), x.numel())
        for step in range(batches.steps):
            batch = batches.at(step)
            gradients = self._gradients(batch, counts=False)
            total[: batch.active].addcmul_(gradients, x.new_tensor(batch.counts)[:, None])
        theta.copy_(where_steps_led)
        return total.div_(x.new_tensor([len(job.indices) for job in jobs])[:, None])


def _mean_gradient_of_descent(displacement: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """The mean of the raw g of steps y <- y - lr (g + shift) that led so far; `scale` is the sum of their rates."""
    mean = displacement / -scale
    return mean if shift is None else mean.sub_(shift)


def _one_pass(samples: int, width: int) -> BatchPlan:
    rows = -(-samples // width)
    positions = np.zeros(rows * width, dtype=np.int64)
    positions[:samples] = np.arange(samples)
    counts = np.full(rows, width)
    counts[-1] = samples - (rows - 1) * width
    return BatchPlan(positions.reshape(rows, width), counts)
