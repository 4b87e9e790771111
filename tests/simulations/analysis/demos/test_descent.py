"""The optimizers of fedopt on any function: as torch.optim takes it, and as closed forms say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fedopt.optimizers.adam import Adam
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.lbfgs import Lbfgs
from fedopt.optimizers.newton import Newton
from fedopt.optimizers.rmsprop import RmsProp
from fedopt.optimizers.sgd import Sgd
from simulations.analysis.demos.descent import descend

MATRIX = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
TARGET = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
START = torch.tensor([[1.0, 1.0, 1.0], [-2.0, 0.3, 5.0]], dtype=torch.float64)


def gradient(w: Tensor, step: int) -> Tensor:
    """Of 1/2 (w - t)' A (w - t)."""
    return (w - TARGET) @ MATRIX


def _loss(w: nn.Parameter) -> float:
    """Sets the gradient, as torch.optim's closures do."""
    w.grad = gradient(w.detach()[None], 0)[0]
    return 0.5 * float(w.grad @ (w.detach() - TARGET))


Torch = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]


@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        (Sgd(), torch.optim.SGD),
        (Sgd(momentum=0.9, nesterov=True), lambda w, lr: torch.optim.SGD(w, lr, momentum=0.9, nesterov=True)),
        (Adam(), torch.optim.Adam),
        (RmsProp(), torch.optim.RMSprop),
        (Lbfgs(), lambda w, lr: torch.optim.LBFGS(w, lr, max_iter=1)),
    ],
    ids=["sgd", "nesterov", "adam", "rmsprop", "lbfgs"],
)
def test_every_lane_takes_the_steps_of_torch(optimizer: Optimizer, reference: Torch) -> None:
    rates = [0.1, 0.05, 0.1, 0.2, 0.1]
    path = descend(optimizer, START, gradient, rates)
    assert path.shape == (6, 2, 3)
    for lane, start in enumerate(START):
        w = nn.Parameter(start.clone())
        own = reference([w], 0.1)

        loss = partial(_loss, w)
        for step, rate in enumerate(rates):
            torch.testing.assert_close(path[step, lane], w.detach(), rtol=1e-10, atol=1e-12)
            own.param_groups[0]["lr"] = rate
            own.step(loss)
        torch.testing.assert_close(path[-1, lane], w.detach(), rtol=1e-10, atol=1e-12)


def test_newton_reaches_the_minimum_of_a_quadratic_in_one_step() -> None:
    path = descend(Newton(damping=0.0), START, gradient, [1.0], hessian=lambda w: MATRIX.clone())
    torch.testing.assert_close(path[1], TARGET.expand(2, 3), rtol=1e-12, atol=1e-12)


def test_a_projection_is_applied_after_every_step() -> None:
    path = descend(Sgd(), START, gradient, [10.0] * 4, project=lambda w: w.clamp(-1, 1))
    expected = START
    for step in range(4):
        expected = (expected - 10.0 * gradient(expected, step)).clamp(-1, 1)
        torch.testing.assert_close(path[step + 1], expected, rtol=1e-12, atol=1e-12)
