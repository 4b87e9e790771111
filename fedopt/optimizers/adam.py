"""torch.optim.Adam and AdamW on lanes, by the kernel that torch's `fused=True` calls: one pass over memory.

The kernel is called directly: what torch.optim does around it costs several times as much as a step of a small model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.stepper import Gradient, LaneOptimizer, TorchStepper

KERNELS: dict[str, Callable[..., Any] | None] = {
    "adam": getattr(torch, "_fused_adam_", None),
    "adamw": getattr(torch, "_fused_adamw_", None),
}
DEVICES = ("cpu", "cuda")


class FusedAdam:
    """Either of the two; a lane's result is that of torch.optim on the client alone."""

    recordable = True

    def __init__(self, kernel: Callable[..., Any], local: LocalSettings, theta: Tensor) -> None:
        self._kernel, self._local = kernel, local
        self._all = theta, torch.zeros_like(theta), torch.zeros_like(theta)
        self._theta, self._means, self._squares = self._all
        self._steps = torch.zeros((), device=theta.device)  # common to all lanes: they begin together

    def begin(self, active: int) -> None:
        self._theta, self._means, self._squares = (tensor[:active] for tensor in self._all)
        for tensor in (self._means, self._squares, self._steps):
            tensor.zero_()

    def step(self, gradient: Gradient) -> None:
        found = gradient()
        self._steps += 1
        self._kernel(
            [self._theta],
            [found],
            [self._means],
            [self._squares],
            [],
            [self._steps],
            lr=self._local.lr,
            beta1=self._local.betas[0],
            beta2=self._local.betas[1],
            weight_decay=self._local.weight_decay,
            eps=self._local.eps,
            amsgrad=False,
            maximize=False,
        )

    def shrink(self, active: int) -> None:
        self._theta = self._theta[:active]
        self._means, self._squares = self._means[:active], self._squares[:active]


def adam(local: LocalSettings, theta: Tensor) -> LaneOptimizer:
    return _adaptive("adam", torch.optim.Adam, local, theta)


def adamw(local: LocalSettings, theta: Tensor) -> LaneOptimizer:
    return _adaptive("adamw", torch.optim.AdamW, local, theta)


def _adaptive(
    name: str, kind: type[torch.optim.Adam] | type[torch.optim.AdamW], local: LocalSettings, theta: Tensor
) -> LaneOptimizer:
    kernel = KERNELS[name]
    if kernel is not None and theta.device.type in DEVICES:
        return FusedAdam(kernel, local, theta)
    return TorchStepper(
        theta,
        lambda parameters: kind(
            parameters, lr=local.lr, betas=local.betas, eps=local.eps, weight_decay=local.weight_decay
        ),
    )
