"""Limits on what a server may ask of this machine, checked before any of an experiment from the network is done.

A simulation, whose experiment comes from this machine's own user, does not need them.
"""

from __future__ import annotations

import math
import os
import sys

import torch

from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.seeding import Purpose, isolated
from fedopt.wire import Hello

MOST_CLIENTS = 10_000
"""The most clients of a federation: a client without its own data computes the partition for all of them."""

MODEL_SHARE = 1 / 16
"""The share of memory that a model's parameters may take; training takes about ten times as much."""

DATA_SHARE = 1 / 8
"""The share of memory that generated data, or the minibatches of a round, may take."""

BYTES_OF_DRAWS = 96
"""Three numbers for an augmented sample, a few times over."""

MOST_STEPS = 10**9
"""The most local steps of a round: hours, even for the smallest models."""

MOST_LAYERS = 2000


def in_simulation() -> bool:
    """Whether this process is a Ray worker, that is, part of a simulation that this machine's user has started.

    A server cannot cause this: no message to a client or SuperNode starts Ray.
    """
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_before_data(experiment: Experiment, hello: Hello, has_own_data: bool) -> None:
    """Raises InvalidExperiment if the experiment's data or model exceed this machine's limits."""
    data = experiment.data
    if data.clients > MOST_CLIENTS:
        raise InvalidExperiment(f"the server has {data.clients} clients; a client takes part among {MOST_CLIENTS}")
    if data.source.names_a_folder:
        raise InvalidExperiment(
            f"the server's data.name is a folder of this machine, {data.source.name}; a client reads what --data names"
        )
    if not has_own_data:
        size = data.source.generated_bytes(data.clients)
        _check_size(f"{data.source.name} data of all clients", size, DATA_SHARE)
    side = data.source.resized_to
    if side is not None and hello.sample_shape[1:] != (side, side):
        raise InvalidExperiment(f"the server resizes images to {side} pixels, but has samples {hello.sample_shape}")
    if data.partition.pieces > MOST_CLIENTS:
        raise InvalidExperiment(f"the server cuts the data into more than {MOST_CLIENTS} parts for each client")
    if not experiment.model.outside_names():  # code from outside was allowed by this machine's user
        _check_size("model", _model_bytes(experiment, hello), MODEL_SHARE)


def check_before_training(experiment: Experiment, samples: int, classes: int, steps: int) -> None:
    """Raises InvalidExperiment if the steps of a round, or their minibatches, exceed this machine's limits."""
    local = experiment.local
    if steps > MOST_STEPS:
        raise InvalidExperiment(f"the server asks for more than {MOST_STEPS:,} local steps a round")
    if local.batch_size == "full" and local.augmentation is None:
        return  # laid out once
    width = samples if local.batch_size == "full" else min(local.batch_size, samples)
    of_sample = 24 + 8 * classes + (0 if local.augmentation is None else BYTES_OF_DRAWS)
    _check_size("minibatches of a round", steps * (width * of_sample + 200), DATA_SHARE)


def _model_bytes(experiment: Experiment, hello: Hello) -> int:
    """Bytes of the parameters and buffers, computed without allocating them."""
    try:
        with isolated(0, Purpose.WEIGHTS), torch.device("meta"):
            module = experiment.model.build(hello.sample_shape, len(hello.class_names))
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        raise InvalidExperiment(f"the server's {experiment.model.name} cannot be built: sizes out of range") from error
    if sum(1 for _ in module.modules()) > MOST_LAYERS:
        raise InvalidExperiment(f"the server's {experiment.model.name} has more than {MOST_LAYERS} layers")
    numbers = sum(math.prod(tensor.shape) for tensor in (*module.parameters(), *module.buffers()))
    return numbers * (8 if experiment.run.dtype == "float64" else 4)


def _check_size(what: str, size: int, share: float) -> None:
    if size > share * memory():
        raise InvalidExperiment(
            f"the server's {what} would take {min(size, 2**80) / 2**30:.3g} GiB, more than this client allows: "
            f"1/{round(1 / share)} of this machine's memory of {memory() / 2**30:.3g} GiB"
        )
