"""SCAFFOLD against FedAvg on MNIST: 100 clients, Dirichlet(0.1), 10 a round, 100 rounds, 3 seeds."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import fedopt

SEEDS = (0, 1, 2)


def accuracies(algorithm: str, local: dict[str, object], data: Path, out: Path) -> list[float]:
    """Final test accuracy for each seed, in percent."""
    found = []
    for seed in SEEDS:
        experiment = fedopt.Experiment(
            data={"name": "mnist", "path": str(data), "clients": 100, "alpha": 0.1},
            model={"name": "mlp", "hidden": [100]},
            algorithm={"name": algorithm},
            local={"batch_size": 32, "steps": 50, **local},
            run={"rounds": 100, "cohort": 10, "seed": seed, "eval_every": 100},
        )
        found.append(100 * fedopt.run(experiment, out / f"{algorithm}-{seed}").summary.final.score)
    print(f"{algorithm} {local}: {', '.join(f'{value:.2f}' for value in found)}")
    return found


@pytest.mark.slow
def test_with_momentum_scaffold_ends_above_fedavg_and_above_95(shared_data: Path, tmp_path: Path) -> None:
    local: dict[str, object] = {"momentum": 0.9, "lr": 0.01}
    fedavg, scaffold = (accuracies(name, local, shared_data, tmp_path) for name in ("fedavg", "scaffold"))
    assert statistics.fmean(scaffold) > statistics.fmean(fedavg)
    assert min(scaffold) > 95


@pytest.mark.slow
def test_with_adam_scaffold_is_not_worse_by_more_than_the_seed_spread(shared_data: Path, tmp_path: Path) -> None:
    """Seeds are paired: both algorithms see the same clients, initial weights, cohorts and minibatches."""
    local: dict[str, object] = {"optimizer": "adam", "lr": 0.001}
    fedavg, scaffold = (accuracies(name, local, shared_data, tmp_path) for name in ("fedavg", "scaffold"))
    gains = [ours - theirs for ours, theirs in zip(scaffold, fedavg, strict=True)]
    assert statistics.fmean(gains) >= -statistics.stdev(gains)
