"""The minibatches of a client for a whole round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedopt.optimizers.local import LocalSettings


@dataclass(frozen=True)
class BatchPlan:
    """Minibatches of one client for one round."""

    positions: np.ndarray
    """Indices into the client's samples, int64 [steps, width]; rows of partial batches are padded with 0."""
    counts: np.ndarray
    """The number of samples in each row, without padding, int64 [steps]."""

    @property
    def steps(self) -> int:
        return len(self.counts)


def plan_batches(samples: int, local: LocalSettings, rng: np.random.Generator, steps: int | None = None) -> BatchPlan:
    """Epoch after epoch, each in a new random order, cut into batches; the last of an epoch may be smaller.

    The sequence of epochs ends after `steps` batches: those of `local`, unless they are given. A full batch needs no
    order.
    """
    per_epoch = batches_per_epoch(samples, local)
    if steps is None:
        assert isinstance(local.work, int), "each client draws its steps: see StepCounts"
        assert local.stragglers == 0, "stragglers draw their steps: see StepCounts"
        steps = local.work if local.steps is not None else local.work * per_epoch
    if local.batch_size == "full":
        every = np.arange(samples, dtype=np.int64)
        return BatchPlan(np.broadcast_to(every, (steps, samples)), np.full(steps, samples))
    width = min(local.batch_size, samples)
    epochs = -(-steps // per_epoch)
    order = np.zeros((epochs, per_epoch * width), dtype=np.int64)
    for epoch in range(epochs):
        order[epoch, :samples] = rng.permutation(samples)
    counts = np.full((epochs, per_epoch), width)
    counts[:, -1] = samples - (per_epoch - 1) * width
    return BatchPlan(order.reshape(-1, width)[:steps], counts.reshape(-1)[:steps])


def samples_seen(samples: int, local: LocalSettings, steps: int) -> int:
    """The number of samples, with repetition, that a client with this many samples processes in so many steps."""
    epochs, batches = divmod(steps, batches_per_epoch(samples, local))
    return epochs * samples + (0 if local.batch_size == "full" else batches * min(local.batch_size, samples))


def plan_samples(samples: int, seen: int, local: LocalSettings, rng: np.random.Generator) -> BatchPlan:
    """Epoch after epoch as in `plan_batches`, until this many samples have been seen; the last batch may be cut.

    A full batch that is cut is a random part of the samples.
    """
    epochs = -(-seen // samples)
    plan = plan_batches(samples, local, rng, epochs * batches_per_epoch(samples, local))
    before = np.concatenate([[0], np.cumsum(plan.counts)])
    steps = int(np.searchsorted(before, seen))
    positions, counts = plan.positions[:steps], plan.counts[:steps].copy()
    counts[-1] = seen - before[steps - 1]
    if local.batch_size == "full" and counts[-1] < samples:
        positions = positions.copy()  # its rows were one row, broadcast
        positions[-1] = rng.permutation(samples)
    return BatchPlan(positions, counts)


def batches_per_epoch(samples: int, local: LocalSettings) -> int:
    """The number of minibatches in one pass over so many samples."""
    return 1 if local.batch_size == "full" else -(-samples // local.batch_size)
