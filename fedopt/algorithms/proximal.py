"""The proximal term weight / 2 |y - x|^2 of several algorithms: when steps of gradient descent can follow it."""

from __future__ import annotations

from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sgd import Sgd

TINY = 1e-300
"""So that a dampening of 1 leaves nothing to judge."""


def overshooting(weight: float, called: str, local: LocalSettings) -> str | None:
    """The sentence for a proximal term along which the local steps grow without end; None if they need not.

    Along weight * (y - x) alone a step of gradient descent multiplies y - x by 1 - lr * weight. With momentum r the
    largest stable lr * weight is 2 (1 + r), with Nesterov's 2 (1 + r) / (1 + 2 r) in both of its forms; dampening d
    divides it by 1 - d. Adam's steps, clipped ones and those of a rate that changes are not judged.
    """
    optimizer = local.optimizer
    if type(optimizer) is not Sgd or local.clip is not None or not local.rates.is_constant:
        return None
    r = optimizer.momentum
    most = 2 * (1 + r) / (1 + 2 * r if optimizer.nesterov else max(1 - optimizer.dampening, TINY))
    lr = local.largest_lr
    if lr * weight < most:
        return None
    rate = "local.lr" if local.has_one_rate else "local.lr, with the largest lr_factor of local.groups,"
    return (
        f"the local steps overshoot the proximal term and grow without end: {rate} times {called} is "
        f"{lr * weight:g}, and must be below {most:g}; lower one of them"
    )
