"""torch's fused kernels on the CPU: an optimizer's step in one pass over memory, for lanes with the same count of steps
and the same rate.

Optimizers whose step torch has no kernel for may reach it by other coefficients. A pass of elementary operations costs
a fifth of the fused Adam step, and torch.sqrt alone as much as all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fedopt.schedules.base import Rate

_ADAM, _ADAGRAD = (getattr(torch, name, None) for name in ("_fused_adam_", "_fused_adagrad_"))


def has_kernels(theta: Tensor) -> bool:
    return _ADAM is not None and _ADAGRAD is not None and theta.device.type == "cpu"


def adam(
    theta: Tensor,
    gradient: Tensor,
    means: Tensor,
    squares: Tensor,
    steps: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """means <- beta_1 means + (1 - beta_1) g, squares <- beta_2 squares + (1 - beta_2) g^2,
    theta <- theta - lr means / (1 - beta_1^steps) / (sqrt(squares / (1 - beta_2^steps)) + eps)."""
    assert _ADAM is not None
    _ADAM(
        [theta],
        [gradient],
        [means],
        [squares],
        [],
        [torch.tensor(steps)],
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=0.0,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )


def adagrad(theta: Tensor, gradient: Tensor, squares: Tensor, lr: float, eps: float) -> None:
    """squares <- squares + g^2,   theta <- theta - lr g / (sqrt(squares) + eps)."""
    assert _ADAGRAD is not None
    _ADAGRAD(
        [theta],
        [gradient],
        [squares],
        [torch.ones(())],
        lr=lr,
        lr_decay=0.0,
        weight_decay=0.0,
        eps=eps,
        maximize=False,
    )


def blocks(counts: Sequence[float], rate: Rate) -> Iterator[tuple[slice, float, float]]:
    """Lanes that a kernel may step together, with their count of steps and their rate: all, or one after the other."""
    rates = rate.flatten().tolist() if isinstance(rate, Tensor) else [rate]
    if len(set(counts)) == 1 and len(rates) == 1:
        yield slice(0, len(counts)), counts[0], rates[0]
        return
    for lane, count in enumerate(counts):
        yield slice(lane, lane + 1), count, rates[lane % len(rates)]
