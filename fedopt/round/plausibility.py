"""Bounds on plausible updates. Finite numbers can be absurd too: an update a million times too long, or 2^62 samples.

An update is compared with those that earlier rounds accepted and with the model that it starts from, never with updates
of its own round: the order of arrival must not decide which update is refused.

The bounds also hold in simulations. There only divergence exceeds them: the run then ends as diverged, a few rounds
before its numbers would be infinite. The defaults are far above the updates of a run that still learns.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor

from fedopt.round.batchnorm import NO_BATCH_NORMS, BatchNorms
from fedopt.section import Section
from fedopt.vectors.layout import Vectors

Norms = Mapping[str, tuple[float, ...]]
"""For each vector that clients send, the median norm of the accepted ones in each of the last rounds."""

REMEMBERED = 100
"""Rounds whose medians are stored."""


class AdmissionSettings(Section):
    """The experiment's [admission] section."""

    largest_norm: float = Field(1000.0, ge=1)
    """An update is refused if its norm exceeds both the model's norm and so many times the median norm of the last
    rounds; in the first round, if it exceeds so many times the model's norm."""
    largest_loss: float = Field(1e9, gt=0)
    """The largest magnitude of a client's loss, and of the other numbers it reports for the records."""
    largest_samples: int = Field(10**8, ge=1)
    """The largest number of samples that a client may report: its weight in the mean grows with it."""


@dataclass(frozen=True)
class Bounds:
    """The bounds on the updates of a run."""

    settings: AdmissionSettings = field(default_factory=AdmissionSettings)
    steps: Callable[[int, int, int], int] | None = None
    """The steps that an order asks of a client: of its samples, of the round and of its number."""
    vectors: tuple[str, ...] | None = None
    """Names of the vectors that the algorithm sends up; None to take any."""
    numbers: tuple[str, ...] = ()
    """Names of the numbers that every client must send."""
    norms: BatchNorms = NO_BATCH_NORMS
    """What the vectors hold of BatchNorm."""


def largest_norms(x: Tensor, norms: Norms, names: Sequence[str], settings: AdmissionSettings) -> dict[str, float]:
    """For each of `names`, the largest norm of a vector [P] in a round that starts at x [P]."""
    model = length(x)
    anything = settings.largest_norm * max(model, math.sqrt(x.numel()))  # a model may start at zero
    usual = {name: statistics.median_low(norms[name]) for name in names if norms.get(name)}
    return {
        # A client that joins late, when the model hardly moves any more, may still send an update as long as the first.
        name: max(settings.largest_norm * usual[name], model) if usual.get(name, 0.0) > 0 else anything
        for name in names
    }


def remember(norms: Norms, accepted: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """`norms` after one more round; `accepted` are the norms of each accepted update, by name."""
    names = sorted({name for lengths in accepted for name in lengths})
    medians = {name: statistics.median_low(lengths[name] for lengths in accepted if name in lengths) for name in names}
    return {**norms, **{name: (*norms.get(name, ()), median)[-REMEMBERED:] for name, median in medians.items()}}


def length(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))


def lengths(vectors: Vectors) -> dict[str, float]:
    return {name: length(vector) for name, vector in vectors.items()}
