"""Default numbers of lanes and workers. They change speed and memory, never results."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from typing import Literal

import torch
from torch import Tensor

from clients.lanes.backends import Backend
from clients.lanes.recording import CudaGraphs, Record
from clients.lanes.steps import sums_gradients
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.activations import activations
from fedopt.task import Task
from fedopt.vectors.layout import Layout
from simulations.ranks import launched

CACHE_BYTES = 12 * 2**20
"""The memory of all lanes' vectors should fit into a CPU's caches; otherwise every step waits for memory."""

CACHE_LANES = 16
"""More lanes do not make a CPU faster: the overhead of a call is small already."""

MEMORY_SHARE = 0.25
"""The share of the memory that lanes may use."""


def choose_lanes(task: Task, experiment: Experiment, sample: Tensor, longest: int, workers: int = 1) -> int:
    """The number of lanes for each worker that is fastest, at least one.

    `sample` is one input [1, ...], `longest` the largest client's size.
    """
    batch = experiment.local.batch_size
    vectors = vectors_per_lane(experiment) * Layout.of(task.module).size
    # A gathered batch, and at worst the outputs of every layer with their gradients.
    width = longest if batch == "full" else min(batch, longest)
    numbers = width * (sample.numel() + 2 * activations(task.module, sample))
    lanes = int(MEMORY_SHARE / workers * memory(sample.device) / ((2 * vectors + numbers) * sample.element_size()))
    if sample.device.type == "cpu":
        lanes = min(lanes, CACHE_LANES, CACHE_BYTES // (vectors * sample.element_size()))
    share = math.ceil(experiment.cohort_size / workers)
    # More than an equal share, for a worker that gets more and smaller clients; otherwise groups of equal size.
    most = share if workers == 1 else share + share // 4
    return most if lanes >= most else math.ceil(share / math.ceil(share / max(1, min(lanes, share))))


def memory(device: torch.device) -> int:
    """Free bytes of a GPU, or all bytes of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def vectors_per_lane(experiment: Experiment) -> int:
    """How many vectors of the model's size a step of one lane reads or writes."""
    local, algorithm = experiment.local, experiment.algorithm
    corrections = 3 if sums_gradients(algorithm, local) else 2 * int(algorithm.needs_mean_gradient)
    return 2 + local.optimizer.vectors_touched + corrections


def choose_recording(requested: bool, device: torch.device, backend: Backend, draws: bool = False) -> Record | None:
    """The recorder of steps; InvalidExperiment if steps cannot be recorded with this device, backend or model."""
    if not requested:
        return None
    if device.type != "cuda":
        raise InvalidExperiment(f"run.cuda_graphs: there are none on {device.type}; leave it out, or run on cuda")
    if backend == "each":
        raise InvalidExperiment("run.cuda_graphs: lanes that train one by one cannot be recorded; run.backend = vmap")
    if draws:
        raise InvalidExperiment("run.cuda_graphs: a model that draws random numbers cannot be recorded; leave it out")
    return CudaGraphs()


def choose_workers(requested: int | Literal["auto"], experiment: Experiment, device: torch.device) -> int:
    """The number of worker processes: one per core, unless forking is not possible or not useful."""
    if device.type != "cpu" or "fork" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        return 1
    if multiprocessing.current_process().daemon:
        return 1  # one of the processes of a study, which has one for every core already
    if requested == "auto" and launched():
        return 1  # torchrun's --nproc-per-node says how many
    if requested == "auto":
        requested = 1 if experiment.run.threads > 1 else len(os.sched_getaffinity(0))
    return min(requested, experiment.cohort_size)
