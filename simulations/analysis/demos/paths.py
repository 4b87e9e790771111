"""The paths of optimizers over a loss of two weights: step sizes, noise, momentum, adaptive rates, SAM, curvature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedopt.optimizers.adagrad import Adagrad
from fedopt.optimizers.adam import Adam
from fedopt.optimizers.amsgrad import Amsgrad
from fedopt.optimizers.asam import Asam
from fedopt.optimizers.asgd import Asgd
from fedopt.optimizers.averaged_gradient import AveragedGradient
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.larc import Larc
from fedopt.optimizers.lars import Lars
from fedopt.optimizers.lbfgs import Lbfgs
from fedopt.optimizers.lion import Lion
from fedopt.optimizers.lookahead import Lookahead
from fedopt.optimizers.nadam import NAdam
from fedopt.optimizers.newton import Newton
from fedopt.optimizers.radam import RAdam
from fedopt.optimizers.rmsprop import RmsProp
from fedopt.optimizers.sam import Sam
from fedopt.optimizers.sgd import Sgd
from simulations.analysis.demos.contours import draw_contours
from simulations.analysis.demos.descent import descend
from simulations.analysis.demos.surfaces import SURFACES, Surface
from simulations.analysis.result import Result
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE = 0.5
"""Standard deviation of the noise of a gradient of one sample, in units of the gradient's norm at the start."""


@dataclass(frozen=True)
class Arm:
    """One curve."""

    panel: str
    label: str
    optimizer: Optimizer
    lr: float
    batch: int | None = None
    """Samples whose mean gradient a step takes; None for the exact gradient."""


def arms(surface: Surface) -> Iterator[Arm]:
    lr, reach = surface.lr, surface.reach
    for label, factor in {"too small": 0.1, "right": 1.0, "too large": 1.9, "much too large": 2.5}.items():
        yield Arm("step size", f"{label}, {lr * factor:.3g}", Sgd(), lr * factor)
    yield Arm("noise", "gradient descent", Sgd(), lr)
    yield Arm("noise", "batch of 16", Sgd(), lr, 16)
    yield Arm("noise", "batch of 1", Sgd(), lr, 1)
    yield Arm("momentum", "heavy ball 0.9", Sgd(momentum=0.9), lr)
    yield Arm("momentum", "nesterov 0.9", Sgd(momentum=0.9, nesterov=True, nesterov_form="look-ahead"), lr)
    yield Arm("momentum", "averaged-gradient", AveragedGradient(), lr)
    yield Arm("momentum", "asgd", Asgd(), lr)
    yield Arm("momentum", "lookahead", Lookahead(base=Sgd()), lr)
    yield Arm("adaptive", "adagrad", Adagrad(), 4 * reach)
    yield Arm("adaptive", "rmsprop", RmsProp(), reach)
    yield Arm("adaptive", "adam", Adam(), reach)
    yield Arm("adaptive", "amsgrad", Amsgrad(), reach)
    yield Arm("adaptive", "nadam", NAdam(), reach)
    yield Arm("adaptive", "radam", RAdam(), reach)
    yield Arm("adaptive", "lion", Lion(), reach / 2)
    yield Arm("flatness and layers", "sam", Sam(base=Sgd(), rho=surface.rho), lr)
    yield Arm("flatness and layers", "asam", Asam(base=Sgd(), rho=surface.rho), lr)
    yield Arm("flatness and layers", "larc", Larc(base=Sgd()), lr)
    yield Arm("flatness and layers", "lars", Lars(), 20.0)
    yield Arm("curvature", "newton", Newton(damping=1e-6), 1.0)
    yield Arm("curvature", "lbfgs", Lbfgs(), 1.0)


def demonstrate(name: str, steps: int | None, seed: int) -> Result:
    """`name` is that of a surface; `steps` are by default the surface's."""
    surface = SURFACES[name]
    steps = steps or surface.steps
    paths = {arm: _path(surface, arm, steps, seed) for arm in arms(surface)}
    losses = {arm: surface.at(path) for arm, path in paths.items()}
    findings = [f"{arm.panel}, {arm.label}: {_end(path[-1], losses[arm][-1])}" for arm, path in paths.items()]
    rows = [
        (arm.panel, arm.label, step, *_numbers(point), *_numbers(loss))
        for arm, path in paths.items()
        for step, (point, loss) in enumerate(zip(path, losses[arm], strict=True))
    ]
    return Result(
        f"paths-{name}",
        f"Paths over {surface.about}",
        findings,
        {"surface": name, "start": f"{surface.start[0]:g}, {surface.start[1]:g}", "steps": steps, "seed": seed},
        ("panel", "optimizer", "step", "w1", "w2", "loss"),
        rows,
        partial(_figure, surface, paths),
    )


def _path(surface: Surface, arm: Arm, steps: int, seed: int) -> Tensor:
    """[steps + 1, 2]."""
    start = torch.tensor([surface.start], dtype=torch.float64)
    source = torch.Generator().manual_seed(seed)
    size = NOISE * torch.linalg.vector_norm(surface.gradient(start)).item()

    def gradient(w: Tensor, step: int) -> Tensor:
        exact = surface.gradient(w)
        if arm.batch is None:
            return exact
        return exact.add(torch.randn(w.shape, generator=source, dtype=w.dtype), alpha=size / math.sqrt(arm.batch))

    return descend(arm.optimizer, start, gradient, [arm.lr] * steps, hessian=surface.hessian)[:, 0]


def _numbers(values: Tensor) -> list[float | None]:
    """The numbers; None for those that have overflowed."""
    return [value if abs(value) < float("inf") else None for value in values.reshape(-1).tolist()]


def _end(point: Tensor, loss: Tensor) -> str:
    if not bool(torch.isfinite(loss)):
        return "diverges"
    return f"ends at ({point[0]:.3g}, {point[1]:.3g}) with loss {loss:.3g}"


def _figure(surface: Surface, paths: Mapping[Arm, Tensor]) -> Figure:
    from simulations.report.shown import ShownFigure

    panels = list(dict.fromkeys(arm.panel for arm in paths))
    figure = ShownFigure(figsize=(10.5, 7.2), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True).reshape(-1)
    for panel, title in zip(axes, panels, strict=True):
        draw_contours(panel, surface.at, surface.window)
        panel.plot(*zip(*surface.minima, strict=True), color="black", marker="*", markersize=8, linestyle="", zorder=5)
        for rank, (arm, path) in enumerate((arm, path) for arm, path in paths.items() if arm.panel == title):
            shown = path[torch.isfinite(path).all(1)]
            panel.plot(
                shown[:, 0],
                shown[:, 1],
                color=COLORS[rank],
                linestyle=DASHES[rank % len(DASHES)],
                linewidth=1.2,
                marker="o",
                markersize=1.6,
                label=arm.label,
            )
        panel.plot(*surface.start, color="black", marker="s", markersize=4, linestyle="", zorder=5)
        panel.set_title(title, fontsize=9)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.09), "ncols": 3, "frameon": False}
        panel.legend(fontsize=6.5, handlelength=2.2, columnspacing=0.9, **below)
    figure.supxlabel("w1", fontsize=9)
    figure.supylabel("w2", fontsize=9)
    return figure
