"""Convergence against theory, on quadratics f(w) = 1/2 sum a_j w_j^2 with known constants, mu <= a_j <= L.

smooth            f(w_k) <= |w_0|^2 / (2 lr k) for lr <= 1 / L, and each step gains |g|^2 / (2 L) or more at lr = 1 / L
strongly convex   gradient descent at lr = 2 / (L + mu): |w_k| <= q^k |w_0| with q = (kappa - 1) / (kappa + 1), and
                  heavy ball with its best rate and momentum: in the end q = (sqrt(kappa) - 1) / (sqrt(kappa) + 1)
noise             with gradients of variance s^2 an entry, E <- (1 - lr a) E, V <- (1 - lr a)^2 V + lr^2 s^2: a constant
                  rate ends in noise that is proportional to it, rates ~ 1 / t do not
one dimension     l_n(w) = (w - w_n)^2 with w_n spread evenly on [-1, 1]: under batches of B drawn with replacement,
                  V ends at lr Var(w_n) / ((1 - lr) B)
batch             mean of |grad f(w_t)|^2 over T steps <= 2 f(w_0) / (lr T) + lr L d s^2 / B; n workers with
                  batches of B are one with n B
steps to a target fall like 1 / B while noise is what limits the rate, and not beyond
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedopt.optimizers.sgd import Sgd
from simulations.analysis.demos.descent import descend
from simulations.analysis.result import Result, Value
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENTRIES = 20
MU, LARGEST = 0.02, 1.0
"""Smallest and largest curvature, mu and L."""
CURVATURES = torch.logspace(math.log10(MU), math.log10(LARGEST), ENTRIES, dtype=torch.float64)
NOISE = 0.5
"""s, the standard deviation of an entry of the gradient of one sample."""
BATCHES = tuple(2**power for power in range(0, 15, 2))
TARGET = 0.02
"""The excess loss whose steps are counted."""


@dataclass(frozen=True)
class Curve:
    """One line of the figure and of the table."""

    panel: str
    label: str
    places: Sequence[float]
    values: Sequence[float]
    is_theory: bool = False


def demonstrate(steps: int, runs: int, seed: int) -> Result:
    """`runs` independent runs where there is noise."""
    curves: list[Curve] = []
    findings: list[str] = []
    for part in (_smooth, _strongly_convex, partial(_noise, runs=runs, seed=seed)):
        part(steps, curves, findings)
    _one_dimension(curves, findings, runs, seed)
    _batches(steps, curves, findings, runs, seed)
    _steps_to_target(curves, findings, runs, seed)
    rows = [
        (curve.panel, curve.label, "theory" if curve.is_theory else "measured", place, value)
        for curve in curves
        for place, value in zip(curve.places, curve.values, strict=True)
    ]
    settings: Mapping[str, Value] = {
        "mu": MU,
        "L": LARGEST,
        "entries": ENTRIES,
        "noise": NOISE,
        "steps": steps,
        "runs": runs,
        "seed": seed,
    }
    return Result(
        "rates",
        "Convergence against theory: what the bounds promise, and what happens",
        findings,
        settings,
        ("panel", "curve", "kind", "x", "y"),
        rows,
        partial(_figure, curves),
    )


def loss(w: Tensor) -> Tensor:
    """f at w [..., ENTRIES], [...]."""
    return 0.5 * (CURVATURES * w.square()).sum(-1)


def _start(lanes: int = 1) -> Tensor:
    return torch.ones(lanes, ENTRIES, dtype=torch.float64)


def _exact(w: Tensor, step: int) -> Tensor:
    return CURVATURES * w


def _noisy(batch: int, source: torch.Generator) -> Callable[[Tensor, int], Tensor]:
    def gradient(w: Tensor, step: int) -> Tensor:
        drawn = torch.randn(w.shape, generator=source, dtype=w.dtype)
        return (CURVATURES * w).add(drawn, alpha=NOISE / math.sqrt(batch))

    return gradient


def expected(rates: Sequence[float], batch: int) -> tuple[Tensor, Tensor]:
    """The mean E and the variance V of every entry after each step from a start at 1, [steps + 1, ENTRIES] each."""
    mean, variance = torch.ones_like(CURVATURES), torch.zeros_like(CURVATURES)
    found = [(mean, variance)]
    for rate in rates:
        kept = 1 - rate * CURVATURES
        mean, variance = kept * mean, kept**2 * variance + rate**2 * NOISE**2 / batch
        found.append((mean, variance))
    means, variances = zip(*found, strict=True)
    return torch.stack(means), torch.stack(variances)


def expected_loss(rates: Sequence[float], batch: int) -> Tensor:
    """E f after each step, [steps + 1]."""
    mean, variance = expected(rates, batch)
    return 0.5 * (CURVATURES * (mean.square() + variance)).sum(1)


def expected_square(rates: Sequence[float], batch: int) -> Tensor:
    """E |grad f|^2 before each step and after the last, [steps + 1]."""
    mean, variance = expected(rates, batch)
    return (CURVATURES.square() * (mean.square() + variance)).sum(1)


def _smooth(steps: int, curves: list[Curve], findings: list[str]) -> None:
    panel, rate = "smooth: f(w) - f*", 1 / LARGEST
    path = descend(Sgd(), _start(), _exact, [rate] * steps)[:, 0]
    values = loss(path)
    bound = [_start().square().sum().item() / (2 * rate * k) for k in range(1, steps + 1)]
    promised = (CURVATURES * path[:-1]).square().sum(1) / (2 * LARGEST)
    gained = values[:-1] - values[1:]
    steps_of = range(1, steps + 1)
    curves.append(Curve(panel, "gradient descent, lr = 1/L", steps_of, values[1:].tolist()))
    curves.append(Curve(panel, "|w0|²/(2 lr k)", steps_of, bound, is_theory=True))
    findings.append(
        f"smooth: after {steps} steps f is {values[-1]:.3g}, the bound {bound[-1]:.3g}; every step gains "
        f"{(gained / promised).min():.2f} or more times the guaranteed |g|²/(2L)"
    )


def _strongly_convex(steps: int, curves: list[Curve], findings: list[str]) -> None:
    panel, kappa = "strongly convex: |w - w*|", LARGEST / MU
    root = math.sqrt(kappa)
    rate, best = 2 / (LARGEST + MU), 4 / (math.sqrt(LARGEST) + math.sqrt(MU)) ** 2
    factors = (kappa - 1) / (kappa + 1), (root - 1) / (root + 1)
    arms = {
        "gradient descent": (Sgd(), rate),
        "heavy ball": (Sgd(momentum=factors[1] ** 2), best),
    }
    for (name, (optimizer, lr)), q, formula in zip(arms.items(), factors, ("κ", "√κ"), strict=True):
        norms = torch.linalg.vector_norm(descend(optimizer, _start(), _exact, [lr] * steps)[:, 0], dim=1)
        curves.append(Curve(panel, name, range(steps + 1), norms.tolist()))
        line = [norms[0].item() * q**k for k in range(steps + 1)]
        curves.append(Curve(panel, f"(({formula} - 1)/({formula} + 1))^k", range(steps + 1), line, is_theory=True))
        half = steps // 2
        factor = (norms[-1] / norms[half]).item() ** (1 / (steps - half))
        findings.append(f"strongly convex, κ = {kappa:g}: {name} shrinks |w| by {factor:.4f} a step, {q:.4f} in theory")


def _noise(steps: int, curves: list[Curve], findings: list[str], runs: int, seed: int) -> None:
    panel, steps = "noise: E f(w) - f*", 20 * steps
    schedules = {
        "lr 0.5": [0.5] * steps,
        "lr 0.05": [0.05] * steps,
        "lr ~ 1/t": [min(0.5, 2 / (MU * (t + 2 / (0.5 * MU)))) for t in range(steps)],
    }
    for name, rates in schedules.items():
        source = torch.Generator().manual_seed(seed)
        measured = loss(descend(Sgd(), _start(runs), _noisy(1, source), rates)).mean(1)
        exact = expected_loss(rates, 1)
        curves.append(Curve(panel, name, range(steps + 1), measured.tolist()))
        curves.append(Curve(panel, f"{name}, expected", range(steps + 1), exact.tolist(), is_theory=True))
        findings.append(f"noise, {name}: f ends at {measured[-1]:.3g}, {exact[-1]:.3g} in theory")


def _one_dimension(curves: list[Curve], findings: list[str], runs: int, seed: int) -> None:
    panel, rate, samples, steps = "one dimension: (w - w_n)²", 0.05, 101, 150
    centers = torch.linspace(-1, 1, samples, dtype=torch.float64)
    for batch in (1, 10):
        source = torch.Generator().manual_seed(seed)

        def gradient(w: Tensor, step: int, batch: int = batch, source: torch.Generator = source) -> Tensor:
            drawn = centers[torch.randint(samples, (len(w), batch), generator=source)]
            return 2 * (w - drawn.mean(1, keepdim=True))

        start = torch.full((runs, 1), 2.0, dtype=torch.float64)
        path = descend(Sgd(), start, gradient, [rate] * steps)[:, :, 0]
        theory = math.sqrt(rate * centers.var(correction=0).item() / ((1 - rate) * batch))
        spread = path[steps // 2 :].std().item()
        curves.append(Curve(panel, f"batch {batch}", range(steps + 1), path[:, 0].tolist()))
        findings.append(f"one dimension, batch {batch}: w ends with deviation {spread:.3g}, {theory:.3g} in theory")
    exact = [2 * (1 - 2 * rate) ** k for k in range(steps + 1)]
    curves.append(Curve(panel, "gradient descent", range(steps + 1), exact, is_theory=True))


def _batches(steps: int, curves: list[Curve], findings: list[str], runs: int, seed: int) -> None:
    panel, first = "batch: mean |∇f|² over the steps", loss(_start())[0].item()
    rates = {
        batch: min(1 / LARGEST, math.sqrt(2 * first * batch / (steps * LARGEST * ENTRIES * NOISE**2)))
        for batch in BATCHES
    }
    bounds = [2 * first / (rate * steps) + rate * LARGEST * ENTRIES * NOISE**2 / batch for batch, rate in rates.items()]
    measured: list[float] = []
    for batch, rate in rates.items():
        source = torch.Generator().manual_seed(seed)
        path = descend(Sgd(), _start(runs), _noisy(batch, source), [rate] * steps)
        measured.append((CURVATURES * path[:-1]).square().sum(2).mean().item())
    exact = [expected_square([rate] * steps, batch)[:-1].mean().item() for batch, rate in rates.items()]
    curves.append(Curve(panel, "measured", BATCHES, measured))
    curves.append(Curve(panel, "expected", BATCHES, exact, is_theory=True))
    curves.append(Curve(panel, "bound", BATCHES, bounds, is_theory=True))
    findings.append(
        f"batch: mean |grad f|² falls from {measured[0]:.3g} (batch 1) to {measured[-1]:.3g} (batch {BATCHES[-1]}), "
        f"the bound from {bounds[0]:.3g} to {bounds[-1]:.3g}"
    )


def _steps_to_target(curves: list[Curve], findings: list[str], runs: int, seed: int) -> None:
    panel = f"steps to E f = {TARGET:g}"
    best = {batch: best_rate(batch) for batch in BATCHES}
    exact = [float(steps) for _, steps in best.values()]
    measured: list[float] = []
    for batch, (rate, steps) in best.items():
        source = torch.Generator().manual_seed(seed)
        found = loss(descend(Sgd(), _start(runs), _noisy(batch, source), [rate] * round(1.2 * steps + 5))).mean(1)
        reached = (found <= TARGET).nonzero()
        measured.append(float(reached[0].item()) if len(reached) else math.nan)
    curves.append(Curve(panel, "measured", BATCHES, measured))
    curves.append(Curve(panel, "best constant rate", BATCHES, exact, is_theory=True))
    curves.append(Curve(panel, "perfect scaling", BATCHES, [exact[0] / batch for batch in BATCHES], is_theory=True))
    useful = max(batch for batch, steps in zip(BATCHES, exact, strict=True) if steps <= 2 * exact[0] / batch)
    findings.append(
        f"steps to f = {TARGET:g}: {exact[0]:.0f} with batch 1, {exact[-1]:.0f} with batch {BATCHES[-1]}; up to batch "
        f"{useful} they fall at least half as fast as the batch grows, then returns diminish"
    )


def best_rate(batch: int) -> tuple[float, int]:
    """The constant rate, of 200 up to 2 / (L + mu), that takes the fewest steps to E f = TARGET, and these steps."""
    found: list[tuple[int, float]] = []
    for rate in torch.logspace(-3.5, math.log10(2 / (LARGEST + MU)), 200, dtype=torch.float64).tolist():
        resting = rate * NOISE**2 / batch / (2 - rate * CURVATURES) / 2
        if resting.sum().item() < TARGET:
            found.append((_steps_until(rate, batch), rate))
    steps, rate = min(found)
    return rate, steps


def _steps_until(rate: float, batch: int) -> int:
    """A step after which E f <= TARGET and before which it is not: from the closed form of E and V, by bisection."""
    kept = (1 - rate * CURVATURES).square()
    resting = rate**2 * NOISE**2 / batch / (1 - kept)

    def value(steps: int) -> float:
        decayed = kept**steps
        return 0.5 * (CURVATURES * (decayed + resting * (1 - decayed))).sum().item()

    low, high = 0, 1
    while value(high) > TARGET:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle) > TARGET else (low, middle)
    return high


def _figure(curves: Sequence[Curve]) -> Figure:
    from simulations.report.shown import ShownFigure

    titles = list(dict.fromkeys(curve.panel for curve in curves))
    figure = ShownFigure(figsize=(10.5, 6.4), layout="constrained")
    for panel, title in zip(figure.subplots(2, 3).reshape(-1), titles, strict=True):
        own = [curve for curve in curves if curve.panel == title]
        over_batches = own[0].places is BATCHES
        for rank, curve in enumerate(own):
            panel.plot(
                curve.places,
                curve.values,
                color="black" if curve.is_theory else COLORS[rank % len(COLORS)],
                linestyle=DASHES[1 + rank % 3] if curve.is_theory else "-",
                linewidth=0.9 if curve.is_theory else 1.5,
                marker="o" if over_batches and not curve.is_theory else "",
                markersize=4,
                label=curve.label,
            )
        if not title.startswith("one"):
            panel.set_yscale("log")
        if over_batches or title.startswith(("smooth", "noise")):
            panel.set_xscale("log")
        panel.set_xlabel("samples a step: workers times batch" if over_batches else "step")
        panel.set_title(title, fontsize=9)
        panel.legend(fontsize=7, framealpha=0.8)
    return figure
