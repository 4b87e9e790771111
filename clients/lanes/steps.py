"""The local steps of lanes: an optimizer on gradients that the algorithm corrects, from one model to as many."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.lanes.backends import Ascent, LaneGradients
from clients.lanes.batches import LaneBatch, LaneBatches
from clients.lanes.recording import Record, Recordings
from fedopt.algorithms.base import Algorithm
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.stepper import Gradient, make_optimizer
from fedopt.vectors.layout import Vectors


class LocalSteps:
    """Steps the lanes of `gradients`; what it works in serves all rounds, so that its steps can be recorded."""

    def __init__(
        self, gradients: LaneGradients, algorithm: Algorithm, local: LocalSettings, record: Record | None
    ) -> None:
        """With `record`, a step is recorded once for each shape of batches, and replayed from then on."""
        self._gradients, self._algorithm = gradients, algorithm
        self._optimizer = make_optimizer(local.optimizer, local, gradients.theta)
        self._gradient = CorrectedGradient(gradients, algorithm, local.clip, sums_gradients(algorithm, local))
        self._sums = torch.zeros_like(gradients.theta) if sums_gradients(algorithm, local) else None
        self._lr = local.lr
        # Where the mean gradient is read off the displacement, steps are added up there and not in theta: theta has a
        # few digits of a displacement only, which near convergence are not enough.
        adds_up = algorithm.needs_mean_gradient and self._sums is None
        self._displacement = torch.zeros_like(gradients.theta) if adds_up else None
        self._origin: Tensor | None = None
        self._places: dict[str, Tensor] = {}
        self._recordings = None if record is None else Recordings(record, gradients)
        if record is not None and not self._optimizer.stays:
            raise InvalidExperiment(f"run.cuda_graphs: steps of {local.stepper} cannot be recorded on this device")

    def take(self, batches: LaneBatches, lanes: int, local: Vectors, x: Tensor) -> StepsTaken:
        """All steps of the first so many lanes from x [Q], where theta is; `local` is what the algorithm began with."""
        self._optimizer.begin(lanes)
        if self._sums is not None:
            self._sums[:lanes].zero_()
        shift = self._algorithm.shift(local)
        if self._displacement is not None:
            self._displacement[:lanes].zero_()
            self._origin = x if self._recordings is None else self._in_place({"the origin": x})["the origin"]
        if self._recordings is not None:
            local = self._in_place(local)
            shift = None if shift is None else self._in_place({"the shift": shift})["the shift"]
        self._gradient.begin(local, shift)
        active = lanes
        for number in range(batches.steps):
            batch = batches.at(number)
            if batch.active < active:
                active = batch.active
                self._optimizer.narrow(active)
                self._gradient.narrow(active)
            if self._recordings is None:
                self._step(batch)
            else:
                self._recordings.step(batch, self._step)
        return StepsTaken(
            gradients=None if self._sums is None else self._sums[:lanes],
            displacement=None if self._displacement is None else self._displacement[:lanes],
        )

    def _step(self, batch: LaneBatch) -> None:
        self._gradient.turn_to(batch)
        if self._displacement is not None:
            assert self._origin is not None
            active = batch.active
            self._gradient.add_to(self._displacement, 1.0, -self._lr)
            torch.add(self._origin, self._displacement[:active], out=self._gradients.theta[:active])
            return
        self._optimizer.step(self._gradient)
        if self._sums is not None:
            self._sums[: batch.active] += self._gradient.raw

    def _in_place(self, vectors: Vectors) -> Vectors:
        """The same, where those of the round before were."""
        found = {}
        for name, vector in vectors.items():
            of_lanes = vector.ndim == 2
            if name not in self._places:
                self._places[name] = torch.empty_like(self._gradients.theta if of_lanes else vector)
            found[name] = self._places[name][: len(vector)].copy_(vector)
        return found


@dataclass(frozen=True)
class StepsTaken:
    """What is known of a round's steps beside where they led; both may be overwritten by the next round's."""

    gradients: Tensor | None
    """Sums of the raw gradients that drove the steps, [lanes, Q], where they had to be added up."""
    displacement: Tensor | None
    """y - x, [lanes, Q], to more digits than y has, where the mean gradient is read off it."""


class CorrectedGradient(Gradient):
    """What an optimizer sees: raw gradients of this step's minibatch, corrected by the algorithm, clipped."""

    raw: Tensor
    """The raw gradients of the last evaluation, [active, Q]: those that drive the step."""

    def __init__(
        self,
        gradients: LaneGradients,
        algorithm: Algorithm,
        clip: float | None,
        keep_raw: bool,
    ) -> None:
        """`keep_raw` asks for `raw` at every step."""
        self._gradients, self._algorithm, self._clip = gradients, algorithm, clip
        self._straight = clip is None and not algorithm.corrects_gradients and not keep_raw

    def begin(self, local: Vectors, shift: Tensor | None) -> None:
        """A round begins with what the algorithm makes of it, and its shift for that."""
        self._local, self._shift = local, shift

    def turn_to(self, batch: LaneBatch) -> None:
        """The evaluations that follow belong to the step on this minibatch; the loss of the first one counts."""
        self._batch, self._first = batch, True

    def __call__(self) -> Tensor:
        self.raw = self._gradients(self._batch, self._first)
        self._first = False
        y = self._gradients.theta[: self._batch.active]
        corrected = self._algorithm.correct(self.raw, y, self._local)
        if self._clip is None:
            return corrected
        norms = torch.linalg.vector_norm(corrected, dim=1, keepdim=True)
        # As torch.nn.utils.clip_grad_norm_ does, lane by lane.
        return corrected * torch.clamp(self._clip / (norms + 1e-6), max=1.0)

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        if self._straight:
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

    def uphill(self, rho: float) -> Gradient | None:
        ascent = self._gradients.uphill(self._batch) if self._straight and self._shift is None else None
        return None if ascent is None else _UphillGradient(self, ascent, self._batch, rho, self._first)

    @functools.cached_property
    def room(self) -> Tensor:
        """For gradients that belong nowhere else, [lanes, Q]."""
        return torch.zeros_like(self._gradients.theta)

    def narrow(self, active: int) -> None:
        self._local = {name: _narrowed(vector, active) for name, vector in self._local.items()}
        if self._shift is not None:
            self._shift = _narrowed(self._shift, active)


class _UphillGradient(Gradient):
    """Raw gradients at the worst point of each lane's ball around theta."""

    def __init__(self, here: CorrectedGradient, ascent: Ascent, batch: LaneBatch, rho: float, counts: bool) -> None:
        self._here, self._ascent, self._batch, self._rho, self._counts = here, ascent, batch, rho, counts

    def __call__(self) -> Tensor:
        self.add_to(self._here.room, 0.0, 1.0)
        return self._here.room[: self._batch.active]

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        self._ascent.accumulate(self._batch, target, keep, scale, self._rho, self._counts)


def _narrowed(vector: Tensor, active: int) -> Tensor:
    return vector[:active] if vector.ndim == 2 else vector


def sums_gradients(algorithm: Algorithm, local: LocalSettings) -> bool:
    """Whether the raw gradients must be summed step by step for their mean.

    Not where each step is y <- y - lr (g + shift), for then the displacement says it.
    """
    if not algorithm.needs_mean_gradient:
        return False
    return not local.is_plain_descent or algorithm.corrects_gradients
