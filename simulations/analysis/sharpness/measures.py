"""How sharp the minimum is that a run has found: the Hessian's spectrum, flatness, and the noise of the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from simulations.analysis.result import Result, Value
from simulations.analysis.runs.objective import Objective
from simulations.analysis.sharpness.flatness import Norm, average_rise, worst_rise
from simulations.analysis.sharpness.hessian import Density, density, largest, smallest, trace
from simulations.report.style import COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMS: Mapping[Norm, str] = {"2": "rho", "inf": "rho / sqrt(P)", "1": "rho"}
"""The norms of the balls, and their radii: the ball of "inf" reaches to rho in its corners, as long as the others."""

ASCENT = 10
"""Most steps of the ascent from each start."""
DRAWS = 20
"""Random directions of the average rise."""
BATCH = 16
"""Samples of a batch whose gradients' spread is measured."""


@dataclass(frozen=True)
class Settings:
    eigenvalues: int = 5
    probes: int = 10
    lanczos: int = 30
    rho: float = 0.05
    seed: int = 0

    @property
    def products(self) -> int:
        """About how many Hessian-vector products, or passes that cost as much, the measures take."""
        return 120 + 8 * self.eigenvalues + self.probes + max(1, self.probes // 3) * self.lanczos + 3 * ASCENT + DRAWS


@dataclass(frozen=True)
class Sharpness:
    """The measures at one point w."""

    loss: float
    gradient: float
    """|grad L(w)|."""
    largest: list[float]
    """The largest eigenvalues of the Hessian, falling."""
    smallest: float
    trace: float
    trace_error: float
    worst: dict[str, float]
    """L(w + e) - L(w) at most within the balls of NORMS, by the norm."""
    average: float
    """Its mean over random directions of length rho."""
    average_error: float
    noise_scale: float | None
    """tr(S) / |grad L|^2 with S the covariance of the gradients of single samples: the batch size from which on larger
    batches stop paying (McCandlish et al. 2018, arXiv:1812.06162); None where the gradient is zero."""
    spectrum: Density


def measure(objective: Objective, w: Tensor, settings: Settings, progress: Callable[[str], None]) -> Sharpness:
    """The measures of the objective at w [P]; `progress` is called with what is computed next."""
    product, size = partial(objective.product, w), len(w)
    source = torch.Generator().manual_seed(settings.seed)
    gradient = objective.gradient(w)
    progress("the largest eigenvalues")
    values, vector = largest(product, size, min(settings.eigenvalues, size), settings.seed)
    progress("the smallest eigenvalue")
    least = smallest(product, size, settings.seed, values[0])
    progress("the trace")
    diagonal = trace(product, size, settings.probes, source)
    progress("the spectral density")
    spectrum = density(product, size, max(1, settings.probes // 3), settings.lanczos, source)
    progress("flatness")
    starts = (gradient, vector, -vector)
    radii = {"2": settings.rho, "inf": settings.rho / size**0.5, "1": settings.rho}
    worst = {norm: worst_rise(objective, w, radii[norm], norm, starts, ASCENT) for norm in NORMS}
    average, average_error = average_rise(objective, w, settings.rho, DRAWS, source)
    progress("the gradient's noise")
    square = float(gradient @ gradient)
    spread = noise(objective, w)
    return Sharpness(
        loss=objective.value(w),
        gradient=square**0.5,
        largest=values,
        smallest=least,
        trace=diagonal.mean,
        trace_error=diagonal.error,
        worst={str(norm): rise for norm, rise in worst.items()},
        average=average,
        average_error=average_error,
        noise_scale=spread / square if square > 0 and spread is not None else None,
        spectrum=spectrum,
    )


def noise(objective: Objective, w: Tensor) -> float | None:
    """tr(S), from the spread of the gradients of disjoint batches around their mean; None with one batch or none."""
    count, mean, squares = 0, torch.zeros_like(w), 0.0
    for gradient in objective.of_batches(w, BATCH):
        count += 1
        before = gradient - mean
        mean += before / count
        squares += float(before @ (gradient - mean))
    return BATCH * squares / (count - 1) if count > 1 else None


def shown(name: str, of: str, found: Sharpness, settings: Mapping[str, Value]) -> Result:
    """The measures as sentences, a table of the spectral density and its figure; `of` says of what they are."""
    findings = [
        f"loss {found.loss:.4g}, gradient of norm {found.gradient:.3g}",
        f"largest eigenvalues of the Hessian: {', '.join(f'{value:.4g}' for value in found.largest)}; "
        f"smallest {found.smallest:.3g}",
        f"trace {found.trace:.4g} ± {found.trace_error:.2g}",
        "worst rise of the loss: "
        + ", ".join(f"{found.worst[norm]:.3g} within |e|_{norm} <= {radius}" for norm, radius in NORMS.items()),
        f"average rise at distance rho: {found.average:.3g} ± {found.average_error:.1g}",
    ]
    if found.noise_scale is not None:
        findings.append(f"gradient noise scale: {found.noise_scale:.4g} samples")
    return Result(
        name,
        f"Sharpness of {of}",
        findings,
        settings,
        ("eigenvalue", "weight"),
        list(zip(found.spectrum.places, found.spectrum.weights, strict=True)),
        partial(_figure, found),
        {key: value for key, value in asdict(found).items() if key != "spectrum"},
        {
            "loss": found.loss,
            "largest eigenvalue": found.largest[0],
            "trace": found.trace,
            "worst rise": found.worst["2"],
            "average rise": found.average,
            "noise scale": found.noise_scale,
        },
    )


def _figure(found: Sharpness) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(5.6, 3.2), layout="constrained")
    panel = figure.subplots()
    places, weights = torch.tensor(found.spectrum.places), torch.tensor(found.spectrum.weights)
    low, high = min(found.smallest, 0.0), found.largest[0]
    width = (high - low) / 60
    grid = torch.linspace(low - 3 * width, high + 3 * width, 400)
    kernel = torch.exp(-0.5 * ((grid[:, None] - places) / width) ** 2) / (width * (2 * torch.pi) ** 0.5)
    panel.plot(grid, (kernel * weights).sum(1).clamp_min(1e-8), color=COLORS[0])
    panel.plot(
        found.largest,
        [2e-8] * len(found.largest),
        color=COLORS[1],
        marker="|",
        markersize=12,
        linestyle="",
        label="largest eigenvalues",
    )
    panel.set_yscale("log")
    panel.set_ylim(bottom=1e-8)
    panel.set_xlabel("eigenvalue of the Hessian")
    panel.set_ylabel("density")
    panel.legend(frameon=False)
    return figure
