"""Other implementations of the bench's work, written as their users would; speeds in client steps per second."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from fedopt.errors import InvalidExperiment, RunStopped
from simulations.benchmarks.engine import Bench, seconds_of
from simulations.benchmarks.plain_loop import torch_optimizer

PATIENCE = 600
"""Timeout in seconds of a peer that runs in another process."""


def deepcopy_dataloader(bench: Bench) -> float:
    """A copy of the model and a DataLoader for each client, as in most frameworks; one thread, one turn."""
    if bench.experiment.local.optimizer.name == "sam" or bench.scaffold:
        raise InvalidExperiment("--peer deepcopy-dataloader: it has neither sam nor scaffold; choose other optimizers")

    def round_() -> None:
        for client in bench.cohort:
            module = copy.deepcopy(bench.module)
            optimizer = torch_optimizer(bench.experiment.local, module)
            own = Subset(TensorDataset(bench.x, bench.y), bench.parts[client].tolist())
            batch = bench.experiment.local.batch_size
            assert isinstance(batch, int)
            for x, y in DataLoader(own, batch_size=batch, shuffle=True, generator=torch.Generator().manual_seed(0)):
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(module(x), y))
                optimizer.step()

    round_()
    return bench.steps / seconds_of(round_)


def flower_ray(bench: Bench) -> float:
    """Flower's simulation on Ray, whose clients use the plain loop; the median of three rounds, without start-up."""
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("flwr") is None:
        raise InvalidExperiment("--peer flower-ray: not installed; get it with pip install 'fedopt[ray]'")
    if bench.experiment.local.optimizer.name == "sam" or bench.scaffold:
        raise InvalidExperiment("--peer flower-ray: its clients have neither sam nor scaffold; choose other optimizers")
    if bench.device.type != "cpu":
        raise InvalidExperiment("--peer flower-ray: its clients train on the CPU; leave out --device")
    work = {"model": bench.model, "local": bench.experiment.local.model_dump(mode="json", exclude_none=True)}
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "simulations.benchmarks.flower_ray"],
            env={**os.environ, **quiet, "FEDOPT_BENCH_WORK": json.dumps(work)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise RunStopped(f"--peer flower-ray: no result after {PATIENCE} s") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("steps per second: ")]
    if not lines:
        raise RunStopped(f"--peer flower-ray ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return float(lines[-1].removeprefix("steps per second: "))
