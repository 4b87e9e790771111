"""Optimizers on lanes against torch.optim on each lane alone, with every setting that they read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.stepper import Gradient, make_optimizer
from simulations.benchmarks.plain_loop import torch_optimizer

LANES, SIZE, STEPS = 3, 5, 6

SETTINGS = {
    "sgd": LocalSettings(lr=0.1),
    "sgd-decay": LocalSettings(lr=0.1, weight_decay=0.3),
    "momentum": LocalSettings(lr=0.1, momentum=0.7),
    "momentum-decay": LocalSettings(lr=0.1, momentum=0.7, weight_decay=0.3),
    "nesterov": LocalSettings(lr=0.1, momentum=0.7, nesterov=True),
    "nesterov-decay": LocalSettings(lr=0.1, momentum=0.7, nesterov=True, weight_decay=0.3),
    "adam": LocalSettings(optimizer="adam", lr=0.1, betas=(0.6, 0.8), eps=0.05),
    "adam-decay": LocalSettings(optimizer="adam", lr=0.1, weight_decay=0.3),
    "adamw-decay": LocalSettings(optimizer="adamw", lr=0.1, betas=(0.6, 0.8), eps=0.05, weight_decay=0.3),
}


class Parabolas(Gradient):
    """The gradient of |theta - center|^2 / 2 on each lane."""

    def __init__(self, theta: Tensor, centers: Tensor) -> None:
        self._theta, self._centers = theta, centers
        self.active = len(theta)

    def __call__(self) -> Tensor:
        return self._theta[: self.active] - self._centers[: self.active]

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        gradient = self()
        target[: self.active].mul_(keep).add_(gradient, alpha=scale)


def alone(local: LocalSettings, start: Tensor, center: Tensor, steps: int) -> Tensor:
    """Where torch's own optimizer leads one lane."""
    module = nn.ParameterList([nn.Parameter(start.clone())])
    optimizer = torch_optimizer(local, module)
    for _ in range(steps):
        module[0].grad = (module[0] - center).detach()
        optimizer.step()
    (end,) = module.parameters()
    return end.detach()


@pytest.mark.parametrize("name", SETTINGS)
def test_each_lane_goes_where_torch_leads_it_round_after_round(name: str) -> None:
    local = SETTINGS[name]
    generator = torch.Generator().manual_seed(0)
    theta = torch.zeros(LANES, SIZE, dtype=torch.float64)
    optimizer = make_optimizer(local.stepper, local, theta)
    for active in (LANES, 1, LANES):  # nothing of the round before is left
        starts, centers = torch.randn(2, LANES, SIZE, generator=generator, dtype=torch.float64)
        theta.copy_(starts)
        gradient = Parabolas(theta, centers)
        gradient.active = active
        optimizer.begin(active)
        for step in range(STEPS):
            if step == 2 and active > 1:  # the last lane has done its work
                gradient.active = active - 1
                optimizer.shrink(active - 1)
            optimizer.step(gradient)
        for lane in range(LANES):
            steps = 0 if lane >= active else 2 if lane == active - 1 > 0 else STEPS
            assert torch.allclose(theta[lane], alone(local, starts[lane], centers[lane], steps), rtol=1e-12, atol=1e-12)


class Given(Gradient):
    """The same gradient at every step."""

    def __init__(self, gradient: Tensor) -> None:
        self._gradient = gradient

    def __call__(self) -> Tensor:
        return self._gradient

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        target.mul_(keep).add_(self._gradient, alpha=scale)


def test_a_small_weight_decay_is_that_of_torch_in_float32() -> None:
    """1 - lr * decay has no digits left there: 1 - 2e-7 is 1 - 1.8e-7."""
    generator = torch.Generator().manual_seed(0)
    theta, gradient = (torch.randn(1, 999, generator=generator) for _ in range(2))
    parameter = torch.nn.Parameter(theta.clone())
    plain = torch.optim.SGD([parameter], lr=0.02, weight_decay=1e-5)
    ours = make_optimizer("sgd", LocalSettings(lr=0.02, weight_decay=1e-5), theta)
    ours.begin(1)
    for _ in range(300):
        parameter.grad = 1e-3 * gradient
        plain.step()
        ours.step(Given(1e-3 * gradient))
    assert theta.equal(parameter.detach())
