"""Lookahead on the noisy quadratic of Zhang, Lucas, Hinton, Ba, "Lookahead Optimizer: k steps forward, 1 step back",
NeurIPS 2019 (arXiv:1907.08610), section 3.1.

    L(w) = 1/2 (w - c)' A (w - c),  c ~ N(0, S) anew in each step;  A and S diagonal,  S = A^-1

With d = 1 - lr a for an entry with curvature a, the mean and variance of SGD's iterates follow

    E <- d E,   V <- d^2 V + lr^2 a^2 s

and those of Lookahead's slow weights, over k steps with slow step b,

    E <- (1 - b + b d^k) E,   V <- (1 - b + b d^k)^2 V + b^2 lr^2 a^2 s (1 - d^2k) / (1 - d^2)

so both excess losses, 1/2 sum a (E^2 + V), are known exactly. Lookahead ends with a smaller one at the same rate, where
SGD forgets its start as fast only at a rate that leaves more noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.lookahead import Lookahead
from fedopt.optimizers.sgd import Sgd
from simulations.analysis.demos.descent import descend
from simulations.analysis.result import Result
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENTRIES = 20
"""Curvatures 1, 1/2, ..., 1/20."""


def demonstrate(steps: int, rate: float, period: int, slow_step: float, runs: int, seed: int) -> Result:
    """`runs` independent runs from the same start at 1; the curves are their means."""
    curvatures = 1 / torch.arange(1, ENTRIES + 1, dtype=torch.float64)
    start = torch.ones(runs, ENTRIES, dtype=torch.float64)
    arms: dict[str, tuple[Optimizer, float, Tensor]] = {
        f"sgd, lr {rate:g}": (Sgd(), rate, of_sgd(curvatures, rate, steps)),
        f"sgd, lr {rate * slow_step:g}": (Sgd(), rate * slow_step, of_sgd(curvatures, rate * slow_step, steps)),
        f"lookahead, lr {rate:g}": (
            Lookahead(base=Sgd(), sync_period=period, slow_step=slow_step),
            rate,
            of_lookahead(curvatures, rate, period, slow_step, steps),
        ),
    }
    measured: dict[str, Tensor] = {}
    for name, (optimizer, lr, _) in arms.items():
        noise = torch.Generator().manual_seed(seed)  # the same noise for every optimizer
        path = descend(optimizer, start, partial(gradient, curvatures, noise), [lr] * steps)
        measured[name] = excess(curvatures, path).mean(1)
    exact = {name: curve for name, (_, _, curve) in arms.items()}
    synchronized = steps - steps % period
    findings = [
        f"{name}: excess loss {measured[name][synchronized]:.4f} after {synchronized} steps, "
        f"{exact[name][synchronized]:.4f} in theory"
        for name in arms
    ]
    rows = [
        (name, step, measured[name][step].item(), _known(exact[name][step].item()))
        for name in arms
        for step in range(steps + 1)
    ]
    return Result(
        "lookahead",
        "Lookahead on a noisy quadratic: less noise at the same rate",
        findings,
        {"steps": steps, "lr": rate, "period": period, "slow_step": slow_step, "runs": runs, "seed": seed},
        ("optimizer", "step", "excess loss", "in theory"),
        rows,
        partial(_figure, measured, exact),
    )


def gradient(curvatures: Tensor, noise: torch.Generator, w: Tensor, step: int) -> Tensor:
    """A (w - c) with c ~ N(0, A^-1), drawn for each lane and entry."""
    c = torch.randn(w.shape, generator=noise, dtype=w.dtype) / curvatures.sqrt()
    return curvatures * (w - c)


def excess(curvatures: Tensor, w: Tensor) -> Tensor:
    """The expected loss of w [..., entries] above its minimum, [...]."""
    return 0.5 * (curvatures * w.square()).sum(-1)


def of_sgd(curvatures: Tensor, rate: float, steps: int) -> Tensor:
    """SGD's expected excess loss from a start at 1, [steps + 1]."""
    decay, added = 1 - rate * curvatures, rate**2 * curvatures
    mean, variance = torch.ones_like(curvatures), torch.zeros_like(curvatures)
    found = [(mean, variance)]
    for _ in range(steps):
        mean, variance = decay * mean, decay**2 * variance + added
        found.append((mean, variance))
    return torch.stack([0.5 * (curvatures * (mean**2 + variance)).sum() for mean, variance in found])


def of_lookahead(curvatures: Tensor, rate: float, period: int, slow_step: float, steps: int) -> Tensor:
    """The slow weights' expected excess loss, [steps + 1]; NaN where they are not updated."""
    decay, added = 1 - rate * curvatures, rate**2 * curvatures
    kept = 1 - slow_step + slow_step * decay**period
    noise = slow_step**2 * added * (1 - decay ** (2 * period)) / (1 - decay**2)
    mean, variance = torch.ones_like(curvatures), torch.zeros_like(curvatures)
    found = torch.full((steps + 1,), torch.nan, dtype=curvatures.dtype)
    for step in range(0, steps + 1, period):
        found[step] = 0.5 * (curvatures * (mean**2 + variance)).sum()
        mean, variance = kept * mean, kept**2 * variance + noise
    return found


def _known(value: float) -> float | None:
    return None if value != value else value


def _figure(measured: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(5.6, 3.2), layout="constrained")
    panel = figure.subplots()
    for rank, (name, curve) in enumerate(measured.items()):
        is_slow = bool(exact[name].isnan().any())  # the fast weights between would hide the others
        panel.plot(curve, color=COLORS[rank], linestyle=DASHES[rank], linewidth=0.6 if is_slow else 1.5, label=name)
        known = (~exact[name].isnan()).nonzero()[:, 0]
        some = known[:: max(1, len(known) // 15)]
        panel.plot(some, exact[name][some], color=COLORS[rank], linestyle="", marker="o", markersize=3.5)
    panel.plot([], [], color="black", linestyle="", marker="o", markersize=3.5, label="in theory")
    panel.set_yscale("log")
    panel.set_xlabel("step")
    panel.set_ylabel("excess loss, mean over runs")
    panel.legend(frameon=False)
    return figure
