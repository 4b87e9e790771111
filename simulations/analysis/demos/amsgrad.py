"""Where Adam does not converge and AMSGrad does: the online problem of Reddi, Kale, Kumar, "On the Convergence of Adam
and Beyond", ICLR 2018 (arXiv:1904.09237), section 3.

    f_t(x) = C x  in steps 1, 4, 7, ...;   f_t(x) = -x  in the two steps between;   x in [-1, 1], C > 2

The three losses add up to (C - 2) x, so x = -1 is best. Adam with beta_1 = 0 and beta_2 = 1 / (1 + C^2), without bias
correction, at rates a / sqrt(t) with a < sqrt(1 - beta_2), forgets the rare large gradient before the next one comes:
it moves up by about a / sqrt(t) in each of the two small steps, and down by no more in the large one. By Theorem 1 it
is at x = 1, the worst point, after every three steps. AMSGrad divides by the largest mean of squares so far, and
approaches -1.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedopt.optimizers.adam import Adam
from fedopt.optimizers.amsgrad import Amsgrad
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.sgd import Sgd
from simulations.analysis.demos.descent import descend
from simulations.analysis.result import Result
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS = 1e-12
"""So small that the denominator is the paper's, which has none."""


def demonstrate(steps: int, large: float) -> Result:
    """`large` is C."""
    beta2 = 1 / (1 + large**2)
    rate = 0.9 * math.sqrt(1 - beta2)
    optimizers: dict[str, Optimizer] = {
        f"adam, β₂ = {beta2:.3g}": Adam(betas=(0.0, beta2), eps=EPS, bias_correction=False),
        f"amsgrad, β₂ = {beta2:.3g}": Amsgrad(betas=(0.0, beta2), eps=EPS),
        "adam, β₂ = 0.999": Adam(betas=(0.0, 0.999), eps=EPS),
        "sgd": Sgd(),
    }
    rates = [rate / math.sqrt(t) for t in range(1, steps + 1)]
    paths = {
        name: descend(
            optimizer, torch.ones(1, 1, dtype=torch.float64), partial(gradient, large), rates, lambda x: x.clamp(-1, 1)
        )[:, 0, 0]
        for name, optimizer in optimizers.items()
    }
    regrets = {name: mean_regret(large, path) for name, path in paths.items()}
    findings = [
        f"{name}: after {steps:,} steps x = {path[-1]:+.3f}, regret {regrets[name][-1]:.3f} a step"
        for name, path in paths.items()
    ]
    rows = [
        (name, step + 1, path[step + 1].item(), regrets[name][step].item())
        for name, path in paths.items()
        for step in range(steps)
    ]
    return Result(
        "amsgrad",
        "Adam's counterexample: it ends at the worst point, AMSGrad at the best",
        findings,
        {"steps": steps, "C": large, "beta2": beta2, "rate": rate},
        ("optimizer", "step", "x", "mean regret"),
        rows,
        partial(_figure, paths, regrets),
    )


def gradient(large: float, x: Tensor, step: int) -> Tensor:
    """f_t' in step t - 1."""
    return torch.full_like(x, large if step % 3 == 0 else -1.0)


def mean_regret(large: float, path: Tensor) -> Tensor:
    """(1 / T) sum of f_t(x_t) - f_t(-1) over the first T steps, for each T; [steps]."""
    steps = torch.arange(len(path) - 1)
    slopes = torch.where(steps % 3 == 0, large, -1.0).to(path.dtype)
    return torch.cumsum(slopes * (path[:-1] + 1), 0) / (steps + 1)


def _figure(paths: dict[str, Tensor], regrets: dict[str, Tensor]) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(8.2, 3.0), layout="constrained")
    position, regret = figure.subplots(1, 2)
    for rank, (name, path) in enumerate(paths.items()):
        look = {"color": COLORS[rank], "linestyle": DASHES[rank], "label": name}
        position.plot(torch.arange(3, len(path), 3), path[3::3], **look)
        regret.plot(torch.arange(1, len(path)), regrets[name], **look)
    position.set_ylabel("x after every third step; −1 is best")
    regret.set_ylabel("mean regret")
    for panel in (position, regret):
        panel.set_xscale("log")
        panel.set_xlabel("step")
    figure.legend(*position.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure
