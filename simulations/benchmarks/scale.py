"""Time and memory of a round as the federation grows: more clients, a larger cohort, a larger model.

Each point runs in a new process, so that its memory is its own. Clients take two steps of ten samples, so that the
engine is measured and not the training. The slope is that of log seconds over log size between consecutive points: 1
is linear, 0 is constant time.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from fedopt.errors import RunStopped

MODELS = {
    1_000: [14],
    10_000: [141],
    100_000: [500, 130],
    200_000: [700, 220],
    1_000_000: [2000, 430],
    10_000_000: [5000, 1930],
}
"""The approximate number of parameters, and the hidden layers that give it on the synthetic data."""

LINEAR = 1.25
"""A slope above this is reported as worse than linear."""


@dataclass(frozen=True)
class Point:
    """One federation and its measurements."""

    axis: str
    clients: int
    cohort: int
    parameters: int
    algorithm: str = "fedavg"
    seconds: float = 0.0
    """Median seconds of a round."""
    mib: float = 0.0
    """Peak memory of all processes together, shared pages counted once."""
    slope: float | None = None
    """Slope from the previous point of the same axis."""

    @property
    def size(self) -> int:
        return {"clients": self.clients, "cohort": self.cohort, "parameters": self.parameters}[self.axis]


def points(largest: int, algorithm: str) -> list[Point]:
    """Federations of at most `largest` clients and 1,000 * `largest` parameters."""
    clients = [Point("clients", n, 10, 10_000, algorithm) for n in (10, 100, 1_000, 10_000)]
    cohorts = [Point("cohort", min(1_000, largest), n, 10_000, algorithm) for n in (10, 100, 1_000)]
    models = [
        Point("parameters", min(100, largest), 10, n, algorithm)
        for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    ]
    return [
        point
        for point in clients + cohorts + models
        if point.clients <= largest and point.cohort <= largest and point.parameters <= 1_000 * largest
    ]


def measure_all(requested: list[Point], rounds: int) -> Iterator[Point]:
    before: Point | None = None
    for point in requested:
        found = measure(point, rounds)
        if before is not None and before.axis == found.axis:
            growth = math.log(found.size / before.size)
            found = replace(found, slope=round(math.log(found.seconds / before.seconds) / growth, 2) + 0.0)
        before = found
        yield found


def measure(point: Point, rounds: int) -> Point:
    done = subprocess.run(
        [sys.executable, "-m", "simulations.benchmarks.one_scale", json.dumps({**asdict(point), "rounds": rounds})],
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    if done.returncode:
        raise RunStopped(f"{point.size} {point.axis} ended with status {done.returncode}: {done.stderr.strip()[-400:]}")
    measured = json.loads(done.stdout.splitlines()[-1])
    return replace(point, **measured)


def stops_being_linear(found: list[Point]) -> list[str]:
    """A sentence for each point at which time grows faster than size."""
    return [
        f"{point.axis}: worse than linear from {point.size:,} on (slope {point.slope})"
        for point in found
        if point.slope is not None and point.slope > LINEAR
    ]
