"""Local training on lanes: the one place where clients learn, on every engine.

A deployed client is one lane; a simulation trains as many side by side as is fastest. What a client learns does not
depend on the lanes beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clients.lanes.backends import Backend, check_products, lane_gradients
from clients.lanes.batches import Augmented, LaneBatches, lane_width
from clients.lanes.curvature import Curvature
from clients.lanes.draws import LaneDraws, Pass
from clients.lanes.norms import LaneNorms
from clients.lanes.penalty import penalized
from clients.lanes.recording import Record
from clients.lanes.steps import LocalSteps, RoundStart, StepsTaken
from clients.stacked.products import in_one_thread, rounding
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork, OnDemand
from fedopt.algorithms.shapes import check_prepared, check_rows
from fedopt.data.batches import BatchPlan, plan_batches
from fedopt.data.step_counts import StepCounts
from fedopt.drift.gradients import GRADIENT
from fedopt.models.batchnorm import BatchNormPolicy, alone_refusal, fails_alone
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import PREFIX, Moments
from fedopt.precision import Products, on_gpu
from fedopt.round.batchnorm import OWN
from fedopt.round.federation import Broadcast, Numbers, WorkOrder
from fedopt.round.method import at_server_rate
from fedopt.schedules.server import ServerSettings
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout, Vectors

PASS_WIDTH = {"stacked": 64, "each": 256, "vmap": 64}
"""Samples that a lane reads at once in a pass over all of a client's data; where lanes share one width, wider batches
are mostly padding."""


@dataclass(frozen=True)
class LocalTraining:
    """What clients do in a round."""

    task: Task
    algorithm: Algorithm
    local: LocalSettings
    seed: int
    """The run's; minibatches, augmentation and dropout are keyed by it."""
    server: ServerSettings = field(default_factory=ServerSettings)
    """How the server's rate changes, for algorithms whose clients read it."""
    batchnorm: BatchNormPolicy = "refuse"
    """What becomes of the module's BatchNorm."""


@dataclass(frozen=True)
class Execution:
    """How it is computed; on a CPU it changes no client's result but for the rounding of `backend` and `products`."""

    backend: Backend
    lanes: int
    """Clients side by side, at most."""
    products: Products = "full"
    record: Record | None = None
    """If given, steps are recorded and replayed."""


@dataclass(frozen=True)
class Job:
    """One client's work in one round."""

    order: WorkOrder
    indices: np.ndarray
    """The client's samples in the trainer's tensors."""
    state: Vectors
    """The client's state from its last accepted round, [P] each."""
    up_buffers: Vectors = field(default_factory=dict)
    state_buffers: Vectors = field(default_factory=dict)
    """Where to write what the client sends up, and its new state, [P] each; a vector without a buffer is allocated."""
    plan: BatchPlan | None = None
    """The minibatches of the round, where they are not those that the round and the client's number stand for."""


@dataclass(frozen=True)
class Result:
    """The outcome of a job; vectors are [P], or rows of what the lanes computed together."""

    order: WorkOrder
    numbers: Numbers
    up: Vectors
    state: Vectors


class LaneTrainer:
    """Trains clients on lanes over one set of tensors."""

    def __init__(self, training: LocalTraining, data: tuple[Tensor, Tensor], execution: Execution) -> None:
        """`data` are samples and targets of all clients."""
        task, local, backend = training.task, training.local, execution.backend
        check_products(execution.products, backend, data[0])
        task.module.train()
        self._draws = LaneDraws(training.seed, data[0].device) if task.draws else None
        self._algorithm, self._local, self._seed = training.algorithm, local, training.seed
        self._server = training.server
        self._backend, self._products = backend, execution.products
        self._x, self._y = data
        # On a GPU many narrow groups cost more than padding, and the last bit is not promised.
        self._one_width = backend == "stacked" or (backend == "vmap" and local.batch_size != "full")
        self._pass_width = PASS_WIDTH[backend]
        like = next(p for p in task.module.parameters() if p.requires_grad).detach()
        layout = Layout.of(task.module)
        gradients = lane_gradients(backend, task, layout, like, execution.lanes, self._draws)
        self._norms = LaneNorms(training.batchnorm, task, training.algorithm, gradients)
        self._fails_alone = fails_alone(task.module, data[0][:1])
        self._gradients = penalized(gradients, local.l1, local.l2)
        curvature = Curvature(task, self._gradients.packing, training.algorithm, local.l2)
        self._steps = LocalSteps(self._gradients, training.algorithm, local, execution.record, curvature)
        self._moments = Moments.of(local)
        self._counts = StepCounts.of(training.algorithm, local, training.seed)

    def train(self, broadcast: Broadcast, jobs: Sequence[Job]) -> list[Result]:
        """Carries out jobs of one round side by side, at most as many as there are lanes."""
        with in_one_thread(), rounding(self._products), on_gpu(self._products), self._autocast():
            return self._train(broadcast, jobs)

    def led_to(self, broadcast: Broadcast, job: Job) -> tuple[Result, Tensor]:
        """Carries out one job: its result, and the model [P + S] to which the client's steps have led."""
        (result,) = self.train(broadcast, [job])
        return result, self._norms.whole(self._gradients.theta[:1], self._norms.after_steps(1))[0].clone()

    def _autocast(self) -> AbstractContextManager[object]:
        """Rounds the operands of autograd's products to bf16, where asked for. Casts are not cached: parameters change
        in place."""
        if self._products != "bf16" or self._backend == "stacked":
            return nullcontext()
        return torch.autocast(self._x.device.type, torch.bfloat16, cache_enabled=False)

    def _train(self, broadcast: Broadcast, jobs: Sequence[Job]) -> list[Result]:
        # Lanes finish in order, so the first takes the most steps; in a survey, the most samples.
        steps = {job.order.client: 0 if broadcast.survey else self._steps_of(broadcast, job) for job in jobs}
        jobs = sorted(jobs, key=lambda job: (-steps[job.order.client], -len(job.indices), job.order.client))
        groups: dict[int | None, list[Job]] = {}
        for job in jobs:
            width = lane_width(len(job.indices), self._local.batch_size) if self._one_width else None
            groups.setdefault(width, []).append(job)
        return [result for width, group in groups.items() for result in self._side_by_side(broadcast, group, width)]

    def _side_by_side(self, broadcast: Broadcast, jobs: list[Job], width: int | None) -> list[Result]:
        """Jobs by falling number of steps, whose batches are padded to one width if it is given."""
        algorithm, packing = self._algorithm_of(broadcast), self._gradients.packing
        theta, norms = self._gradients.theta[: len(jobs)], self._norms
        x, down = norms.row(broadcast.x), {name: norms.row(vector) for name, vector in broadcast.down.items()}
        kept = [name for name in jobs[0].state if name != OWN]
        state = {name: norms.rows([job.state[name] for job in jobs]) for name in kept}
        theta.copy_(x)
        if broadcast.survey:
            return self._surveyed(broadcast, x, jobs)
        plans = [self._plan(broadcast, job) for job in jobs]
        batches = self._batches(jobs, plans, width, self._augmented(broadcast, jobs, plans))
        beginning = norms.begin(broadcast.x, x, [job.state for job in jobs])
        full_gradient = OnDemand(lambda: self._full_pass(broadcast, beginning.x, jobs)[0])
        local = LocalStart(
            x=x,
            down=down,
            state=state,
            steps=theta.new_tensor(batches.steps_of_lanes),
            samples=theta.new_tensor([len(job.indices) for job in jobs]),
            rates=self._steps.rates(broadcast.round, batches.steps, broadcast.factors.local),
            full_gradient=full_gradient,
            layout=packing,
        )
        start = algorithm.start(local)
        check_rows(algorithm, "start", start, theta.shape)
        start = start if beginning.private is None else beginning.x
        if start is not None:
            theta.copy_(start)

        self._gradients.losses()  # discards those of a round that failed midway
        prepared = algorithm.begin(local)
        check_prepared(algorithm, prepared, theta.shape)
        clients = [job.order.client for job in jobs]
        if self._draws is not None:
            self._draws.begin(broadcast.round, clients, Pass.STEPS)
        origin = x if start is None else theta.clone()
        moments = self._starting_moments(local)
        taken = self._steps.take(batches, RoundStart(local.rates, len(jobs), origin, prepared, moments))
        losses = self._gradients.losses()[: len(jobs)].tolist()
        statistics = norms.after_steps(len(jobs))

        moved = theta - origin if taken.displacement is None else taken.displacement.clone()
        mean = self._mean_gradient(taken, moved, algorithm.shift(prepared))
        work = LocalWork(
            x=x,
            y=theta,
            displacement=beginning.shared(moved if start is None else moved + (origin - x)),
            state=state,
            steps=local.steps,
            samples=local.samples,
            rates=taken.rates,
            mean_gradient=None if mean is None else beginning.shared(mean),
            full_gradient=full_gradient,
            full_loss=OnDemand(lambda: self._full_pass(broadcast, beginning.x, jobs, losses=True)[1]),
            layout=packing,
            optimizer=self._local.optimizer,
            step_rates=local.rates,
            down=down,
            prepared=prepared,
            moments=taken.moments,
        )
        asked = {GRADIENT: work.full_gradient()} if broadcast.gradient else {}
        finished = algorithm.finish(work)
        _check_names(algorithm, finished, state)
        moments_up, own_moments = self._moments.to_send(taken.moments, packing)
        sent = {name: beginning.shared(rows) for name, rows in {**finished.up, **moments_up, **asked}.items()}
        new = {**finished.state, **own_moments} | ({} if beginning.private is None else {OWN: beginning.own(theta)})
        up = self._hand_over(sent, [job.up_buffers for job in jobs], statistics)
        new_state = self._hand_over(new, [job.state_buffers for job in jobs], statistics)
        own = {name: numbers.tolist() for name, numbers in finished.numbers.items()}
        return [
            Result(
                order=job.order,
                numbers=Numbers(
                    samples=len(job.indices),
                    steps=batches.steps_of_lanes[lane],
                    loss=losses[lane] / batches.steps_of_lanes[lane],
                    own={name: of_lanes[lane] for name, of_lanes in own.items() if self._is_sent(name, of_lanes[lane])},
                ),
                up=up[lane],
                state=new_state[lane],
            )
            for lane, job in enumerate(jobs)
        ]

    def _starting_moments(self, local: LocalStart) -> Vectors:
        """[lanes, Q] each."""
        lanes, optimizer = len(local.steps), self._local.optimizer
        own = self._algorithm.moments(local, optimizer)
        if not own:
            return self._moments.to_load(local.down, local.state, lanes)
        zeros = dict.fromkeys(optimizer.moment_names, torch.zeros_like(local.x))
        return {name: vector.expand(lanes, len(local.x)) for name, vector in {**zeros, **own}.items()}

    def _algorithm_of(self, broadcast: Broadcast) -> Algorithm:
        """With the server's rate of this round."""
        return at_server_rate(self._algorithm, self._server, broadcast.round, broadcast.factors)

    def _surveyed(self, broadcast: Broadcast, x: Tensor, jobs: Sequence[Job]) -> list[Result]:
        """Full gradients and losses at x, and nothing else."""
        self._gradients.losses()  # discards those of a round that failed midway
        gradients, losses = self._full_pass(broadcast, x, jobs, losses=True)
        up = self._hand_over({GRADIENT: gradients}, [job.up_buffers for job in jobs])
        return [
            Result(job.order, Numbers(len(job.indices), steps=0, loss=losses[lane].item()), up[lane], {})
            for lane, job in enumerate(jobs)
        ]

    def _is_sent(self, name: str, number: float) -> bool:
        """A number of the records may be left out; one that the server computes with may not, so that it is refused."""
        return math.isfinite(number) or name in self._algorithm.sends_numbers

    def _mean_gradient(self, taken: StepsTaken, moved: Tensor, shift: Tensor | None) -> Tensor | None:
        """Of the raw gradients that drove the steps, [lanes, Q]."""
        if taken.gradients is not None:
            return taken.gradients / taken.weights[:, None]
        if taken.displacement is None:
            return None
        mean = moved / -taken.rates[:, None]  # of steps y <- y - lr (g + shift)
        return mean if shift is None else mean.sub_(shift)

    def _hand_over(
        self, rows: Vectors, places: Sequence[Vectors], statistics: Tensor | None = None
    ) -> list[dict[str, Tensor]]:
        """For each lane the flat vectors in its row of each of `rows`, in its buffers where it has some; `statistics`
        are BatchNorm's, [lanes, S]."""
        packing = self._gradients.packing
        found: list[dict[str, Tensor]] = [{} for _ in places]
        for name, lanes in rows.items():
            if self._norms:
                whole = self._norms.whole(lanes, self._norms.behind(statistics, name))
                for lane, place in enumerate(places):
                    found[lane][name] = place[name].copy_(whole[lane]) if name in place else whole[lane]
                continue
            flat = None if all(name in place for place in places) else packing.unpack(lanes)
            for lane, place in enumerate(places):
                if flat is None:
                    packing.unpack_into(place[name], lanes[lane])
                found[lane][name] = place[name] if flat is None else flat[lane]
        return found

    def _batches(
        self, jobs: Sequence[Job], plans: Sequence[BatchPlan], width: int | None, augmented: Augmented | None = None
    ) -> LaneBatches:
        indices = [job.indices for job in jobs]
        return LaneBatches(self._x, self._y, indices, plans, self._gradients.theta.dtype, width, augmented)

    def _augmented(self, broadcast: Broadcast, jobs: Sequence[Job], plans: Sequence[BatchPlan]) -> Augmented | None:
        """Of minibatches alone: passes over all of a client's data see its images as they are."""
        augmentation = self._local.augmentation
        if augmentation is None:
            return None
        draws = []
        for job, plan in zip(jobs, plans, strict=True):
            rng = stream(self._seed, Purpose.AUGMENTATION, broadcast.round, job.order.client)
            draws.append(augmentation.draw(plan.steps, plan.positions.shape[1], rng))
        return Augmented(augmentation, draws)

    def _plan(self, broadcast: Broadcast, job: Job) -> BatchPlan:
        rng = stream(self._seed, Purpose.BATCHES, broadcast.round, job.order.client)
        plan = job.plan or plan_batches(len(job.indices), self._local, rng, self._steps_of(broadcast, job))
        if self._fails_alone and bool((plan.counts == 1).any()):
            raise alone_refusal(len(job.indices), self._local.batch_size)
        return plan

    def _steps_of(self, broadcast: Broadcast, job: Job) -> int:
        if job.plan is not None:
            return job.plan.steps
        return self._counts.at(len(job.indices), broadcast.round, job.order.client)

    def _full_pass(
        self, broadcast: Broadcast, x: Tensor, jobs: Sequence[Job], *, losses: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Gradients [lanes, Q] and, if asked for, losses [lanes] at x, [Q] or [lanes, Q], over all data of each job's
        client."""
        by_size = sorted(range(len(jobs)), key=lambda lane: -len(jobs[lane].indices))  # lanes finish in this order
        jobs = [jobs[lane] for lane in by_size]
        theta = self._gradients.theta[: len(jobs)]
        where_steps_led = theta.clone()
        theta.copy_(x if x.ndim == 1 else x[by_size])
        width = self._pass_width
        batches = self._batches(jobs, [_one_pass(len(job.indices), width, self._fails_alone) for job in jobs], width)
        if self._draws is not None:
            self._draws.begin(broadcast.round, [job.order.client for job in jobs], Pass.FULL_GRADIENT)
        gradient, loss = torch.zeros_like(theta), x.new_zeros(len(jobs))
        with self._norms.unchanged():
            for step in range(batches.steps):
                batch = batches.at(step)
                counts = x.new_tensor(batch.counts)
                gradient[: batch.active].addcmul_(self._gradients(batch, counts=losses), counts[:, None])
                if losses:
                    loss[: batch.active] += self._gradients.losses()[: batch.active].to(loss) * counts
        theta.copy_(where_steps_led)
        samples = x.new_tensor([len(job.indices) for job in jobs])
        gradient, loss = gradient.div_(samples[:, None]), loss.div_(samples)
        if by_size == list(range(len(jobs))):
            return gradient, loss
        places = np.argsort(by_size).tolist()
        return gradient[places], loss[places]


def _check_names(algorithm: Algorithm, finished: Finished, state: Vectors) -> None:
    """TypeError for an algorithm whose `finish` does not return what it declares."""
    if finished.up.keys() != set(algorithm.sends_up):
        raise TypeError(
            f"{algorithm.name}: finish sends {sorted(finished.up)}, and sends_up declares {sorted(algorithm.sends_up)}"
        )
    own = {name for name in state if not name.startswith(PREFIX)}
    if finished.state.keys() != own:
        raise TypeError(f"{algorithm.name}: finish returned the state {sorted(finished.state)}, not {sorted(own)}")
    missing = set(algorithm.sends_numbers) - finished.numbers.keys()
    if missing:
        raise TypeError(f"{algorithm.name}: finish lacks the numbers {sorted(missing)} that sends_numbers declares")


def _one_pass(samples: int, width: int, never_alone: bool = False) -> BatchPlan:
    """With `never_alone` no batch has one sample, if there are more."""
    rows = -(-samples // width)
    positions = np.zeros(rows * width, dtype=np.int64)
    positions[:samples] = np.arange(samples)
    counts = np.full(rows, width)
    counts[-1] = samples - (rows - 1) * width
    if never_alone and rows > 1 and counts[-1] == 1:
        positions[-width : -width + 2] = samples - 2, samples - 1
        counts[-2:] = width - 1, 2
    return BatchPlan(positions.reshape(rows, width), counts)
