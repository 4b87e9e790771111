"""A small study: the same experiment under several algorithms and seeds, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedopt.experiment import Experiment
from fedopt.history import History
from simulations.embedded import run


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


def variants(base: Experiment, algorithms: Sequence[str], seeds: int) -> list[Experiment]:
    """The base experiment under each algorithm and seed 0, 1, ...; all else is equal."""
    sections = base.model_dump(exclude_none=True)
    own = sections["algorithm"]
    common = {key: own[key] for key in ("server_lr", "weighting")}
    return [
        Experiment(
            **{
                **sections,
                "algorithm": own if own["name"] == algorithm else {"name": algorithm, **common},
                "run": {**sections["run"], "seed": seed},
            }
        )
        for algorithm in algorithms
        for seed in range(seeds)
    ]


def run_study(experiments: Sequence[Experiment], out: Path, done: Callable[[History], None]) -> list[History]:
    """Runs each experiment into a directory of its own below `out`."""
    histories: list[History] = []
    for experiment in experiments:
        directory = out / f"{experiment.algorithm.name}-seed{experiment.run.seed}"
        histories.append(run(experiment, directory))
        done(histories[-1])
    return histories
