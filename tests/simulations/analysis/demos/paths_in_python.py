"""What the page of `fedopt demo paths` has to compute, by fedopt's own optimizers and autograd."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from simulations.analysis.demos.descent import descend
from simulations.analysis.demos.paths_page.choices import CHOICES, Settings
from simulations.analysis.demos.surfaces import SURFACES

CHAOTIC = {
    ("ravine", "nesterov"): 1e-6,
    ("ravine", "nesterov-look-ahead"): 1e-6,
    ("ravine", "lbfgs"): 1e-3,
    ("saddle", "asam"): 1e-5,
}
"""Paths on which a difference in the last digit grows, and how far two computations may be apart at their ends."""


@dataclass(frozen=True)
class Job:
    surface: str
    optimizer: str
    settings: Settings
    start: tuple[float, float]
    steps: int
    noise: list[list[float]] | None = None

    @property
    def arguments(self) -> list[object]:
        """Of JavaScript's `descend`."""
        return [self.surface, self.optimizer, dict(self.settings), list(self.start), self.steps, self.noise]

    def path(self, moved: float = 0.0) -> Tensor:
        """Python's points [steps + 1, 2]; `moved` changes the start relatively."""
        surface, others = SURFACES[self.surface], {key: value for key, value in self.settings.items() if key != "lr"}

        def gradient(w: Tensor, step: int) -> Tensor:
            exact = surface.gradient(w)
            return exact if self.noise is None else exact + torch.tensor([self.noise[step]], dtype=w.dtype)

        start = torch.tensor([self.start], dtype=torch.float64) * (1 + moved)
        rates = [self.settings["lr"]] * self.steps
        optimizer = CHOICES[self.optimizer].optimizer(**others)
        return descend(optimizer, start, gradient, rates, hessian=surface.hessian)[:, 0]


def usual_jobs(most: int = 1000) -> list[Job]:
    """Every optimizer on every surface, as the page shows it at first, or its first steps."""
    return [
        Job(name, optimizer, choice.settings(surface), surface.start, min(most, surface.steps))
        for name, surface in SURFACES.items()
        for optimizer, choice in CHOICES.items()
    ]


def changed_jobs() -> list[Job]:
    """Every optimizer with all of its settings changed, and with noise where it takes it."""
    surface = SURFACES["beale"]
    found = []
    for optimizer, choice in CHOICES.items():
        usual = choice.settings(surface)
        settings = {key: 3 if key == "sync_period" else 0.7 * value for key, value in usual.items()}
        found.append(Job("beale", optimizer, settings, (2.0, 1.1), 30))
        if not choice.exact:
            found.append(Job("beale", optimizer, settings, (2.0, 1.1), 30, noise(7, 30, 0.5)))
    return found


def noise(seed: int, steps: int, deviation: float) -> list[list[float]]:
    """mulberry32 (Ettinger 2017, public domain) and Box, Muller 1958."""
    state = seed

    def uniform() -> float:
        nonlocal state
        state = (state + 0x6D2B79F5) % 2**32
        mixed = (state ^ state >> 15) * (state | 1) % 2**32
        mixed ^= (mixed + (mixed ^ mixed >> 7) * (mixed | 61)) % 2**32
        return (mixed ^ mixed >> 14) / 2**32

    found = []
    for _ in range(steps):
        radius = deviation * math.sqrt(-2 * math.log(1 - uniform()))
        angle = 2 * math.pi * uniform()
        found.append([radius * math.cos(angle), radius * math.sin(angle)])
    return found


def apart(found: list[list[float | None]], expected: Tensor) -> float:
    """The largest distance of two points of the same step, relative to the point's size, or to 0.001 where that is
    smaller. Infinite if one path overflows before the other."""
    points = torch.tensor([[math.nan if w is None else w for w in point] for point in found], dtype=torch.float64)
    if len(points) != len(expected) or not torch.equal(points.isfinite().all(1), expected.isfinite().all(1)):
        return math.inf
    there = expected.isfinite().all(1)
    sizes = expected[there].abs().amax(1).clamp(min=1e-3)
    return float(((points - expected)[there].abs().amax(1) / sizes).max())


def check(
    jobs: list[Job], found: list[list[list[float | None]]], bounds: Mapping[tuple[str, str], float] | None = None
) -> None:
    for job, path in zip(jobs, found, strict=True):
        distance, bound = apart(path, job.path()), (bounds or {}).get((job.surface, job.optimizer), 1e-9)
        assert distance <= bound, f"{job.surface}, {job.optimizer}, {job.settings}: {distance}"
