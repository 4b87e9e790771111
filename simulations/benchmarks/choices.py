"""What `fedopt bench engine` compares. `--help` reads it, so nothing here imports torch."""

from __future__ import annotations

from typing import Any

CLIENTS, COHORT = 100, 10

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"local": {"optimizer": "sgd", "momentum": 0.9}},
    "adam": {"local": {"optimizer": "adam"}},
    "adamw": {"local": {"optimizer": "adamw", "weight_decay": 0.01}},
    "sam": {"local": {"optimizer": "sam"}},
    "adagrad": {"local": {"optimizer": "adagrad"}},
    "rmsprop": {"local": {"optimizer": "rmsprop"}},
    "nadam": {"local": {"optimizer": "nadam"}},
    "radam": {"local": {"optimizer": "radam"}},
    "scaffold": {"algorithm": {"name": "scaffold"}},
}
"""The table's optimizers, each with the sections of an experiment that select it."""

PEERS = {
    "deepcopy-dataloader": "simulations.benchmarks.peers:deepcopy_dataloader",
    "flower-ray": "simulations.benchmarks.peers:flower_ray",
}
"""Other implementations of the same work, each a function from a `Bench` to client steps per second."""
