"""Compares a backend with plain autograd on the user's own model and data before it trains.

Tracing and copying a module miss some of what it does: hooks, in-place changes, contexts such as torch.no_grad,
closures over another module. A trial batch shows whether the gradients are still those of the module. It is computed in
float64, so that a difference is an error and not rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from clients.lanes.backends import LaneGradients, PerturbsInPlace
from clients.lanes.batches import LaneBatch, LaneBatches
from clients.lanes.draws import LaneDraws, Pass
from clients.stacked.products import in_one_thread
from clients.stacked.rule import NotStackable
from fedopt.data.batches import BatchPlan
from fedopt.models.behavior import CANNOT_RUN
from fedopt.precision import on_gpu
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout

TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
"""Largest difference, relative to the largest entry. Normalizing almost constant numbers loses a few digits."""

SMALL = 1e-6
"""Smaller gradients are compared as if their largest entry were this."""

SAMPLES, WIDTH, LANES = 6, 3, 2
KEEP, SCALE, RHO = 0.9, -0.1, 0.1

Make = Callable[[Task, Layout, Tensor, int, LaneDraws | None], LaneGradients]


def why_not_trusted(make: Make, task: Task, x: Tensor, y: Tensor) -> str | None:
    """The difference between the backend and autograd on a trial batch, as a clause; None if there is none.

    `x` and `y` are real samples [n, ...] and targets [n]. The module is not changed.
    """
    exact = torch.float32 if x.device.type == "mps" else torch.float64
    for dtype in (exact, x.dtype):
        with _as(task.module, dtype), in_one_thread(), on_gpu("full"):
            trial = _Trial(task, _in(dtype, x), _in(dtype, y))
            try:
                trial.autograd()
            except CANNOT_RUN:
                continue  # a module that works in one dtype only is compared in that
            try:
                return trial.difference(make)
            except NotStackable as error:
                return str(error)
            except CANNOT_RUN as error:
                return f"it fails on a trial batch: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return None  # autograd itself fails; training reports it


def without_gradient(task: Task, x: Tensor, y: Tensor) -> list[str]:
    """Names of the trainable parameters that take no part in the loss of a trial batch."""
    task.module.train()
    named = dict(task.module.named_parameters())
    names = Layout.of(task.module).names
    draws = LaneDraws(0, x.device) if task.draws else None
    if draws is not None:
        draws.begin(0, range(1), Pass.STEPS)
    with nullcontext() if draws is None else draws.of(0, 0):
        try:
            loss = task.loss(task.module(x[:SAMPLES]), y[:SAMPLES])
        except CANNOT_RUN:
            return []  # training reports it
    found = torch.autograd.grad(loss, [named[name] for name in names], allow_unused=True)
    return [name for name, gradient in zip(names, found, strict=True) if gradient is None]


class _Trial:
    """Two lanes of three and two samples, then one lane alone, at random parameters."""

    def __init__(self, task: Task, x: Tensor, y: Tensor) -> None:
        n = min(SAMPLES, len(x))
        self._task, self._x, self._y = task, x[:n], y[:n]
        task.module.train()
        self._layout = Layout.of(task.module)
        start = self._layout.flatten(task.module)
        rng = stream(0, Purpose.VERIFICATION)
        shape = (2, LANES, start.numel())
        noise = torch.from_numpy(rng.standard_normal(shape)).to(start)
        self._theta = start * (1 + 0.1 * noise[0]) + 0.01 * noise[1]
        self._draws = LaneDraws(0, x.device) if task.draws else None
        if self._draws is not None:
            self._draws.begin(0, range(LANES), Pass.STEPS)
        rows = np.arange(2 * WIDTH).reshape(2, WIDTH) % n
        self._indices = [np.arange(n), np.arange(n)[::-1].copy()]
        self._plans = [
            BatchPlan(rows, np.array([min(WIDTH, n), min(2, n)])),
            BatchPlan(rows[:1], np.array([min(2, n)])),
        ]

    def autograd(self) -> list[tuple[Tensor, Tensor]]:
        """Loss and gradient [P] of each lane at the first step."""
        return [self._autograd(lane, 0, self._theta[lane]) for lane in range(LANES)]

    def difference(self, make: Make) -> str | None:
        gradients = make(self._task, self._layout, self._theta, LANES, self._draws)
        packing = gradients.packing
        batches = LaneBatches(self._x, self._y, self._indices, self._plans, self._theta.dtype, WIDTH)
        first = batches.at(0)
        gradients.theta.copy_(packing.pack(self._theta))
        found = packing.unpack(gradients(first)).clone()
        losses = gradients.losses()
        again = packing.unpack(gradients(first)).clone()
        perturbed = self._perturbed(gradients, first)
        gradients.accumulate(first, gradients.theta, KEEP, SCALE)
        stepped = packing.unpack(gradients.theta).clone()
        last = packing.unpack(gradients(batches.at(1))).clone()

        expected = self.autograd()
        loss = torch.stack([loss for loss, _ in expected])
        gradient = torch.stack([gradient for _, gradient in expected])
        then, _ = stepped.unbind()
        checks = [
            ("loss", losses.to(loss), loss),
            ("gradient", found, gradient),
            ("gradient of the same batch, a second time,", again, gradient),
            ("step", stepped, KEEP * self._theta + SCALE * gradient),
            ("gradient after a lane has finished", last, self._autograd(0, 1, then)[1][None]),
        ]
        if perturbed is not None:
            checks.append(("SAM gradient", perturbed, self._at_the_worst_point(gradient)))
        for what, one, other in checks:
            error = _relative_error(one, other)
            if not error <= TOLERANCE[self._theta.dtype]:  # NaN is no agreement
                return f"on a trial batch its {what} differs from plain autograd's by {100 * error:.2g}%"
        if not self._copy_evaluates_alike():
            return "a copy of it in evaluation mode puts out something else than it does itself"
        return None

    def _perturbed(self, gradients: LaneGradients, batch: LaneBatch) -> Tensor | None:
        perturbed = gradients.perturbed(batch) if isinstance(gradients, PerturbsInPlace) else None
        if perturbed is None:
            return None
        into = torch.zeros_like(gradients.theta)
        perturbed.accumulate(batch, into, 0.0, 1.0, RHO, False)
        return gradients.packing.unpack(into)

    def _at_the_worst_point(self, gradient: Tensor) -> Tensor:
        moved = self._theta + RHO * gradient / gradient.norm(dim=1, keepdim=True)
        return torch.stack([self._autograd(lane, 0, moved[lane])[1] for lane in range(LANES)])

    def _autograd(self, lane: int, step: int, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient of the module itself, not of a copy."""
        plan = self._plans[lane]
        rows = self._indices[lane][plan.positions[step, : plan.counts[step]]]
        chosen = torch.from_numpy(rows).to(self._x.device)
        with _at(self._task.module, self._layout, theta) as parameters:
            with nullcontext() if self._draws is None else self._draws.of(lane, step):
                loss = self._task.loss(self._task.module(self._x[chosen]), self._y[chosen])
            found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return loss.detach(), torch.cat([part.reshape(-1) for part in found])

    @torch.no_grad()
    def _copy_evaluates_alike(self) -> bool:
        module, theta = self._task.module, self._theta[0]
        other = copy.deepcopy(module).eval()
        for name, view in self._layout.split(theta).items():
            other.get_parameter(name).copy_(view)
        found = other(self._x)
        with _at(module, self._layout, theta):
            module.eval()
            try:
                expected = module(self._x)
            finally:
                module.train()
        return _relative_error(found, expected) <= TOLERANCE[theta.dtype]


def _in(dtype: torch.dtype, values: Tensor) -> Tensor:
    return values.to(dtype) if values.is_floating_point() else values


def _relative_error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max()) / max(float(expected.abs().max()), SMALL)


@contextmanager
def _at(module: nn.Module, layout: Layout, theta: Tensor) -> Iterator[list[nn.Parameter]]:
    """In this context the module's trainable parameters have the values of theta [P]; yields them."""
    named = dict(module.named_parameters())
    parameters = [named[name] for name in layout.names]
    before = [parameter.data for parameter in parameters]
    for parameter, view in zip(parameters, layout.split(theta).values(), strict=True):
        parameter.data = view.clone()
    try:
        yield parameters
    finally:
        for parameter, data in zip(parameters, before, strict=True):
            parameter.data = data


@contextmanager
def _as(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """In this context the module's floating-point parameters and buffers have another dtype."""
    parameters = [(parameter, parameter.data) for parameter in module.parameters() if parameter.is_floating_point()]
    owners = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None and buffer.is_floating_point()
    ]
    for parameter, data in parameters:
        parameter.data = data.to(dtype)
    for owner, name, buffer in owners:
        owner._buffers[name] = buffer.to(dtype)
    try:
        yield
    finally:
        for parameter, data in parameters:
            parameter.data = data
        for owner, name, buffer in owners:
            owner._buffers[name] = buffer
