"""The local steps of lanes: an optimizer steps with gradients that the algorithm corrects."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.lanes.backends import LaneGradients, PerturbedGradients, PerturbsInPlace
from clients.lanes.batches import LaneBatch, LaneBatches
from clients.lanes.curvature import Curvature
from clients.lanes.recording import Record, Recordings
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.shapes import check_rows, refuse_corrected
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.base import Gradient, Samples, subtract
from fedopt.optimizers.groups import grouped
from fedopt.optimizers.local import LocalSettings
from fedopt.schedules.base import Rate, Rates, RowRates
from fedopt.vectors.layout import Vectors


class LocalSteps:
    """Steps the lanes of `gradients`. Its buffers serve all rounds, so that its steps can be recorded."""

    def __init__(
        self,
        gradients: LaneGradients,
        algorithm: Algorithm,
        local: LocalSettings,
        record: Record | None,
        curvature: Curvature,
    ) -> None:
        """With `record`, a step is recorded once for each shape of batches and replayed from then on."""
        self._gradients, self._algorithm = gradients, algorithm
        if algorithm.pushes and local.optimizer.moves_first:
            told = f"{algorithm.name} moves the weights between the steps, and {local.optimizer.title} within them"
            raise InvalidExperiment(f"local.optimizer: {told}; choose another optimizer")
        groups = grouped(local.optimizer, local.groups, gradients.packing, gradients.theta)
        self._optimizer = groups.optimizer.build(gradients.theta, gradients.packing)
        self._factors = groups.factors
        curvature.prepare(local.optimizer)
        self._gradient = CorrectedGradient(
            gradients, algorithm, local.clip, sums_gradients(algorithm, local), curvature
        )
        self._sums = torch.zeros_like(gradients.theta) if sums_gradients(algorithm, local) else None
        self._local = local
        self._plan = local.rates
        # If the mean gradient is computed from the displacement, steps are added up in a displacement and not in theta:
        # theta holds only a few digits of it, which are too few near convergence.
        from_displacement = algorithm.needs_mean_gradient and self._sums is None
        self._displacement = torch.zeros_like(gradients.theta) if from_displacement else None
        self._origin: Tensor | None = None
        self._fixed: dict[str, Tensor] = {}
        self._rate_now: Rate = 0.0
        self._push: Tensor | None = None
        self._recordings = None if record is None else Recordings(record, gradients)
        # A recording contains the numbers that it was made with, so rates that change are read from a tensor.
        self._rate = None if record is None or self._plan.is_constant else gradients.theta.new_zeros(())
        self._scaled_rate = None if self._rate is None else self._rate.clone()
        if record is not None and not self._optimizer.recordable:
            name = local.optimizer.name
            raise InvalidExperiment(f"run.cuda_graphs: steps of {name} cannot be recorded; leave it out")

    def take(self, batches: LaneBatches, start: RoundStart) -> StepsTaken:
        """Takes all steps of the first lanes in a round; theta holds what they start from already."""
        lanes, local, x = start.lanes, start.prepared, start.x
        per_step = start.rates
        rates = Rates(per_step, self._gradients.theta.dtype, self._rate)
        scale = self._algorithm.step_scale
        scaled = rates
        if scale != 1.0:
            scaled = Rates([scale * rate for rate in per_step], self._gradients.theta.dtype, self._scaled_rate)
        self._optimizer.begin(lanes, scaled if self._factors is None else RowRates(scaled, self._factors))
        if start.moments and self._local.carries_second_moment:
            self._optimizer.load_second_moments(start.moments)
        elif start.moments:
            self._optimizer.load_moments(start.moments)
        if self._sums is not None:
            self._sums[:lanes].zero_()
        shift = self._algorithm.shift(local)
        check_rows(self._algorithm, "shift", shift, self._gradients.theta[:lanes].shape)
        if self._displacement is not None:
            self._displacement[:lanes].zero_()
            self._origin = x if self._recordings is None else self._at_fixed_address("the origin", x)
        push = self._algorithm.push(local)
        check_rows(self._algorithm, "push", push, self._gradients.theta[:lanes].shape)
        if self._recordings is not None:
            local = {name: self._at_fixed_address(name, vector) for name, vector in local.items()}
            shift = None if shift is None else self._at_fixed_address("the shift", shift)
            push = None if push is None else self._at_fixed_address("the push", push)
        self._gradient.begin(local, shift, batches)
        self._push = push
        active = lanes
        for number in range(batches.steps):
            batch = batches.at(number)
            if batch.active < active:
                active = batch.active
                self._optimizer.shrink(active)
                self._gradient.shrink(active)
                self._push = None if self._push is None else _shrunk(self._push, active)
            rates.choose(number)
            scaled.choose(number)
            self._rate_now = rates.at(number)
            if self._recordings is None:
                self._step(batch)
            else:
                self._recordings.step(batch, self._step)
        if self._recordings is not None:
            self._take_back(start.prepared)
        steps = x.new_tensor(batches.steps_of_lanes)
        sums_of_rates = x.new_tensor([rates.total(steps) for steps in batches.steps_of_lanes])
        return StepsTaken(
            gradients=None if self._sums is None else self._sums[:lanes],
            displacement=None if self._displacement is None else self._displacement[:lanes],
            weights=steps if self._plan.is_constant else sums_of_rates,
            rates=sums_of_rates,
            moments=self._optimizer.moments,
        )

    def rates(self, round_: int, steps: int, factor: float) -> list[float]:
        """The learning rate of each step of a round."""
        return [factor * self._plan.rate(round_, step) for step in range(steps)]

    def _step(self, batch: LaneBatch) -> None:
        rate = self._rate_now if self._factors is None else self._factors.row * self._rate_now
        self._gradient.set_batch(batch, rate)
        if self._displacement is not None:
            assert self._origin is not None
            active = batch.active
            if isinstance(self._rate_now, Tensor):
                subtract(self._displacement[:active], self._rate_now, self._gradient())
            else:
                self._gradient.add_to(self._displacement, 1.0, -self._rate_now)
            torch.add(self._origin, self._displacement[:active], out=self._gradients.theta[:active])
            return
        self._optimizer.step(self._gradient)
        if self._push is not None:
            subtract(self._gradients.theta[: batch.active], rate, self._push)
        if self._sums is not None:
            sums = self._sums[: batch.active]
            if self._plan.is_constant:
                sums += self._gradient.raw
            else:
                subtract(sums, -self._rate_now, self._gradient.raw)

    def _at_fixed_address(self, name: str, vector: Tensor) -> Tensor:
        """A copy of the vector in the memory that recordings read it from."""
        if name not in self._fixed:
            self._fixed[name] = torch.empty_like(self._gradients.theta if vector.ndim == 2 else vector)
        return self._fixed[name][: len(vector)].copy_(vector)

    def _take_back(self, prepared: Vectors) -> None:
        """Copies what recorded steps made of the vectors that `gradient` may change in place."""
        if self._algorithm.evaluates_elsewhere:
            rows = {name: vector for name, vector in prepared.items() if vector.ndim == 2 and vector.shape[1] > 1}
            for name, vector in rows.items():
                vector.copy_(self._fixed[name][: len(vector)])


@dataclass(frozen=True)
class RoundStart:
    """What the lanes of one round start from."""

    rates: Sequence[float]
    """Of each step."""
    lanes: int
    x: Tensor
    """[Q], or [lanes, Q]."""
    prepared: Vectors
    """The vectors that the algorithm's `begin` returned, [Q] or [lanes, Q] each."""
    moments: Vectors
    """The optimizer's moments by name, [lanes, Q] each; empty for zeros."""


@dataclass(frozen=True)
class StepsTaken:
    """What a round's steps leave behind beside theta. The next round overwrites it."""

    gradients: Tensor | None
    """Sums of the raw gradients of the steps, [lanes, Q], if the mean gradient is computed from them. If rates change,
    gradients are weighted by their rates, as they are in a displacement, so that both ways give the same mean."""
    weights: Tensor
    """The sums of the gradients' weights, [lanes]: the numbers of steps, or the sums of the rates."""
    displacement: Tensor | None
    """y - x, [lanes, Q], with more digits than y has, if the mean gradient is computed from it."""
    rates: Tensor
    """The sum of the learning rates of each lane's steps, [lanes]."""
    moments: Vectors
    """The optimizer's moments by name, [lanes, Q] each."""


class CorrectedGradient(Gradient):
    """The gradients that an optimizer sees: those of the minibatch, corrected by the algorithm and clipped."""

    raw: Tensor
    """The raw gradients of the last evaluation, [active, Q], with which the optimizer steps."""
    rate: Rate
    """The learning rate of this step."""

    def __init__(
        self,
        gradients: LaneGradients,
        algorithm: Algorithm,
        clip: float | None,
        keep_raw: bool,
        curvature: Curvature,
    ) -> None:
        """`keep_raw` asks for `raw` at every step."""
        self._curvature = curvature
        self._gradients, self._algorithm, self._clip = gradients, algorithm, clip
        # Then gradients can be accumulated in their target, without a tensor of their own.
        self._accumulates = clip is None and not algorithm.corrects_gradients and not keep_raw
        self._elsewhere = algorithm.evaluates_elsewhere
        self._perturbs = gradients if isinstance(gradients, PerturbsInPlace) else None

    def begin(self, local: Vectors, shift: Tensor | None, batches: LaneBatches) -> None:
        """Starts a round with the vectors of the algorithm's `begin` and its shift."""
        self._local, self._shift, self._batches = local, shift, batches

    def set_batch(self, batch: LaneBatch, rate: Rate) -> None:
        """Starts a step of this rate: evaluations are on this minibatch from now on, and the loss of the first one
        counts."""
        self._batch, self._first, self.rate = batch, True, rate

    def __call__(self) -> Tensor:
        y = self._gradients.theta[: self._batch.active]
        if self._elsewhere:
            corrected = self._algorithm.gradient(_AtPoints(self, y), y, self._local)
        else:
            self.raw = self._evaluated()
            corrected = self._algorithm.correct(self.raw, y, self._local)
        if getattr(corrected, "shape", None) != y.shape:  # it would be broadcast
            refuse_corrected(self._algorithm, corrected, y.shape)
        if self._clip is None:
            return corrected
        norms = torch.linalg.vector_norm(corrected, dim=1, keepdim=True)
        # As torch.nn.utils.clip_grad_norm_ does, lane by lane.
        return corrected * torch.clamp(self._clip / (norms + 1e-6), max=1.0)

    def _evaluated(self) -> Tensor:
        """The raw gradient where theta is."""
        found = self._gradients(self._batch, self._first)
        self._first = False
        return found

    @property
    def is_first(self) -> bool:
        """Whether nothing has been evaluated in this step yet."""
        return self._first

    def at(self, y: Tensor, point: Tensor) -> Tensor:
        """The raw gradient at a point on this step's minibatch; a copy, since the next evaluation may overwrite it."""
        if point is y:
            self.raw = self._evaluated().clone()
            return self.raw
        saved = self.elsewhere[: len(y)].copy_(y)
        y.copy_(point)
        self.raw = self._evaluated().clone()
        y.copy_(saved)
        return self.raw

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        if self._accumulates:
            self._gradients.accumulate(self._batch, target, keep, scale, self._first)
            self._first = False
            if self._shift is not None:
                target[: self._batch.active].add_(self._shift, alpha=scale)
            return
        gradient = self()
        active = target[: self._batch.active]
        if keep != 1.0:
            active.mul_(keep)
        active.add_(gradient, alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        self.add_to(self._gradients.theta, 1.0, scale)

    def perturbed(self, rho: float) -> Gradient | None:
        if self._perturbs is None or not self._accumulates or self._shift is not None:
            return None
        perturbed = self._perturbs.perturbed(self._batch)
        return None if perturbed is None else _PerturbedGradient(self, perturbed, self._batch, rho, self._first)

    def hessian(self, lane: int) -> Tensor:
        y, curvature = self._gradients.theta[lane], self._curvature
        raw = curvature.hessian(y, self._batch, lane)
        if not self._algorithm.corrects_gradients:
            return raw
        own = {name: v[lane : lane + 1] if v.ndim == 2 else v for name, v in self._local.items()}
        return curvature.corrected(raw, self.raw[lane], y, own)

    def kronecker_inverse(self, lane: int, damping: float) -> Callable[[Tensor], Tensor]:
        return self._curvature.kronecker_inverse(self._gradients.theta[lane], self._batch, lane, damping)

    def samples(self) -> Samples:
        positions = self._batches.first_positions(self._batch.step)
        return Samples(torch.tensor(positions, device=self.theta.device), self._batches.samples_of_lanes)

    @property
    def theta(self) -> Tensor:
        """[lanes, Q]"""
        return self._gradients.theta

    @functools.cached_property
    def elsewhere(self) -> Tensor:
        """Where theta was, while a gradient is evaluated at another point, [lanes, Q]."""
        return torch.zeros_like(self._gradients.theta)

    @functools.cached_property
    def buffer(self) -> Tensor:
        """For gradients without another target, [lanes, Q]."""
        return torch.zeros_like(self._gradients.theta)

    def shrink(self, active: int) -> None:
        self._local = {name: _shrunk(vector, active) for name, vector in self._local.items()}
        if self._shift is not None:
            self._shift = _shrunk(self._shift, active)


class _AtPoints:
    """Implements `fedopt.algorithms.local_work.MinibatchGradient`."""

    def __init__(self, gradient: CorrectedGradient, y: Tensor) -> None:
        self._gradient, self._y = gradient, y
        self.rate, self.is_first = gradient.rate, gradient.is_first

    def __call__(self, point: Tensor) -> Tensor:
        return self._gradient.at(self._y, point)


class _PerturbedGradient(Gradient):
    """Raw gradients at the worst point of each lane's ball around theta."""

    def __init__(
        self, at_theta: CorrectedGradient, perturbed: PerturbedGradients, batch: LaneBatch, rho: float, counts: bool
    ) -> None:
        self._at_theta, self._perturbed, self._batch, self._rho, self._counts = at_theta, perturbed, batch, rho, counts

    def __call__(self) -> Tensor:
        self.add_to(self._at_theta.buffer, 0.0, 1.0)
        return self._at_theta.buffer[: self._batch.active]

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        self._perturbed.accumulate(self._batch, target, keep, scale, self._rho, self._counts)

    def add_to_theta(self, scale: float) -> None:
        self.add_to(self._at_theta.theta, 1.0, scale)


def _shrunk(vector: Tensor, active: int) -> Tensor:
    return vector[:active] if vector.ndim == 2 else vector


def sums_gradients(algorithm: Algorithm, local: LocalSettings) -> bool:
    """Whether the mean gradient needs a sum of the raw gradients, step by step.

    It does not if each step is y <- y - lr (g + shift): then it follows from the displacement.
    """
    if not algorithm.needs_mean_gradient:
        return False
    return not local.is_plain_descent or algorithm.corrects_gradients or algorithm.pushes
