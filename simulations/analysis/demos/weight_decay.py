"""L2 in the gradient against decoupled weight decay, under Adam: Loshchilov, Hutter, "Decoupled Weight Decay
Regularization", ICLR 2019 (arXiv:1711.05101).

Independent weights with the loss 1/2 (w - 1)^2 each, whose gradients have noise of standard deviation s, from small to
large. Adam divides a gradient by about r = sqrt((w - 1)^2 + s^2), its root mean square. In the mean it rests where

    L2, in the gradient            (w - 1) + decay w = 0          w = 1 / (1 + decay)        whatever s
    AdamW, on the weight itself    (w - 1) / r + decay w = 0      w = 1 / (1 + decay r)

so AdamW shrinks weights with large gradients more, relative to L2, where Adam's division has taken that part of the
penalty away. For SGD both are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedopt.optimizers.adam import Adam
from fedopt.optimizers.adamw import AdamW
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.sgd import Sgd
from simulations.analysis.demos.descent import descend
from simulations.analysis.result import Result
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISES: Sequence[float] = tuple(10 ** (place / 4 - 1) for place in range(9))
"""Standard deviations of the gradients' noise, from 0.1 to 10."""

BETAS = 0.9, 0.999


def demonstrate(steps: int, rate: float, decay: float, runs: int, seed: int) -> Result:
    """`runs` independent runs from w = 1; the figures are means over the runs and the second half of the steps."""
    noises = torch.tensor(NOISES, dtype=torch.float64)
    arms: dict[str, tuple[Optimizer, Tensor]] = {
        "adam with L2": (Adam(betas=BETAS, weight_decay=decay), torch.full_like(noises, 1 / (1 + decay))),
        "adamw": (AdamW(betas=BETAS, weight_decay=decay), rest_of_adamw(noises, decay)),
        "sgd with L2": (Sgd(weight_decay=decay), torch.full_like(noises, 1 / (1 + decay))),
    }
    measured: dict[str, Tensor] = {}
    for name, (optimizer, _) in arms.items():
        noise = torch.Generator().manual_seed(seed)  # the same noise for every optimizer
        start = torch.ones(runs, len(noises), dtype=torch.float64)
        path = descend(optimizer, start, partial(gradient, noises, noise), [rate] * steps)
        measured[name] = path[steps // 2 :].mean((0, 1))
    exact = {name: rest for name, (_, rest) in arms.items()}
    findings = [
        f"{name}: a weight with noise {NOISES[0]:g} rests at {found[0]:.3f} ({exact[name][0]:.3f} in theory), "
        f"one with noise {NOISES[-1]:g} at {found[-1]:.3f} ({exact[name][-1]:.3f})"
        for name, found in measured.items()
    ]
    rows = [
        (name, s, found[place].item(), exact[name][place].item())
        for name, found in measured.items()
        for place, s in enumerate(NOISES)
    ]
    return Result(
        "weight-decay",
        "Weight decay under Adam: L2 shrinks all weights alike, AdamW those with large gradients more",
        findings,
        {"steps": steps, "lr": rate, "weight_decay": decay, "runs": runs, "seed": seed},
        ("optimizer", "noise", "mean weight", "in theory"),
        rows,
        partial(_figure, measured, exact),
    )


def gradient(noises: Tensor, noise: torch.Generator, w: Tensor, step: int) -> Tensor:
    return w - 1 + noises * torch.randn(w.shape, generator=noise, dtype=w.dtype)


def rest_of_adamw(noises: Tensor, decay: float) -> Tensor:
    """The w with w (1 + decay r) = 1, r^2 = (w - 1)^2 + s^2, for each noise s: by bisection, since the left side grows
    with w where it is below 1."""
    found: list[float] = []
    for s in noises.tolist():
        low, high = 0.0, 1.0
        for _ in range(60):
            w = (low + high) / 2
            low, high = (low, w) if w * (1 + decay * math.hypot(w - 1, s)) > 1 else (w, high)
        found.append((low + high) / 2)
    return torch.tensor(found, dtype=noises.dtype)


def _figure(measured: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(5.6, 3.2), layout="constrained")
    panel = figure.subplots()
    for rank, (name, found) in enumerate(measured.items()):
        panel.plot(NOISES, exact[name], color=COLORS[rank], linestyle=DASHES[rank], label=f"{name}, in theory")
        panel.plot(NOISES, found, color=COLORS[rank], linestyle="", marker="os^"[rank], markersize=4, label=name)
    panel.set_xscale("log")
    panel.set_xlabel("standard deviation of the gradient's noise")
    panel.set_ylabel("where the weight rests; 1 without decay")
    panel.legend(frameon=False)
    return figure
