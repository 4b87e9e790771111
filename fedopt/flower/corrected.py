"""Steps of a torch optimizer on corrected gradients, and what the algorithm needs to know of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.shapes import refuse_corrected
from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import Layout, Vectors


class CorrectedSteps:
    """Corrects the gradients of an optimizer just before each of its steps, and counts the steps."""

    def __init__(self, algorithm: Algorithm, prepared: Vectors, model: nn.Module, layout: Layout) -> None:
        """`prepared` are the vectors of the algorithm's `begin`, [P] or [1, P] each."""
        self._algorithm, self.prepared, self._layout = algorithm, prepared, layout
        parameters = dict(model.named_parameters())
        self._parameters = [parameters[name] for name in layout.names]
        self._clip: float | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._sum: Tensor | None = None
        changes = algorithm.corrects_gradients or algorithm.shift(prepared) is not None
        self._changes, self._sums = changes, algorithm.needs_mean_gradient
        self.steps, self.rates = 0, 0.0
        """Steps taken, and the sum of their learning rates."""

    def attach(self, optimizer: torch.optim.Optimizer, clip: float | None) -> None:
        """From now on every `optimizer.step()` corrects the gradients first, and then clips them to this norm."""
        if self._optimizer is not None:
            raise InvalidExperiment("an optimizer is attached already; one optimizer takes all steps of a round")
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        trained = zip(self._layout.names, self._parameters, strict=True)
        missing = [name for name, parameter in trained if id(parameter) not in held]
        if missing:
            raise InvalidExperiment(
                f"the optimizer does not hold the parameter {missing[0]}; give it all of them, or set requires_grad to "
                "False for it in the server's and the clients' model"
            )
        self._optimizer, self._clip = optimizer, clip
        optimizer.register_step_pre_hook(self._before_step)

    @property
    def mean_gradient(self) -> Tensor | None:
        """The mean of the raw gradients, each weighted by its step's rate, [P]; None if the algorithm needs none."""
        if not self._sums:
            return None
        if self._sum is None or self.rates <= 0:
            raise InvalidExperiment("no step was taken with a learning rate above 0; the algorithm needs the gradients")
        return self._sum / self.rates

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(callable(argument) for argument in (*args, *kwargs.values())):
            raise InvalidExperiment(
                "optimizer.step(closure) computes gradients that cannot be corrected; call backward() and then step()"
            )
        rate = _rate(optimizer)
        self.steps += 1
        self.rates += rate
        if not (self._changes or self._sums or self._clip is not None):
            return
        raw = self._flat([_dense(parameter) for parameter in self._parameters])
        if self._sums:
            # Weighted by the rates, so that under a schedule the mean is that of a displacement.
            self._sum = raw * rate if self._sum is None else self._sum.add_(raw, alpha=rate)
        corrected = raw
        if self._changes:
            y = self._flat([parameter.detach() for parameter in self._parameters])
            rows = self._algorithm.correct(raw[None], y[None], self.prepared)
            if getattr(rows, "shape", None) != y[None].shape:  # it would be broadcast
                refuse_corrected(self._algorithm, rows, y[None].shape)
            corrected = rows[0]
        if self._clip is not None:
            norm = torch.linalg.vector_norm(corrected)
            corrected = corrected * torch.clamp(self._clip / (norm + 1e-6), max=1.0)  # as clip_grad_norm_ does
        if corrected is raw:
            return
        views = self._layout.split(corrected).values()
        for parameter, view in zip(self._parameters, views, strict=True):
            parameter.grad = view

    @staticmethod
    def _flat(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.reshape(-1) for part in parts])


def _dense(parameter: nn.Parameter) -> Tensor:
    """The gradient; zeros where the loss does not depend on the parameter."""
    if parameter.grad is None:
        return torch.zeros_like(parameter, requires_grad=False)
    return parameter.grad.detach().to_dense() if parameter.grad.is_sparse else parameter.grad.detach()


def _rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the step, which must be the same for all parameters."""
    rates = {float(group["lr"]) for group in optimizer.param_groups if "lr" in group}
    if len(rates) != 1:
        raise InvalidExperiment(
            f"the optimizer's parameter groups have the learning rates {sorted(rates)}; the algorithm needs one rate "
            "for all parameters"
        )
    return rates.pop()
