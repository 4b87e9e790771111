"""What an update may claim at most. Finite numbers can be absurd too: an update a million times too long, 2^62 samples.

An update is compared with what earlier rounds accepted and with the model it starts from, never with updates of its
own round: which of them is refused must not depend on the order in which they arrive.

The bounds hold in simulations as well, where the only cause is a run that diverges: it then ends as one that diverged,
which is a result, a few rounds before its numbers would be infinite. The defaults are far above what a run that still
learns makes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from pydantic import Field
from torch import Tensor

from fedopt.section import Section
from fedopt.vectors.layout import Vectors

Norms = Mapping[str, tuple[float, ...]]
"""For each vector that clients send, the median length of the accepted ones in each of the last rounds."""

REMEMBERED = 100
"""Rounds whose medians are remembered."""


class AdmissionSettings(Section):
    """The experiment's [admission] section."""

    largest_norm: float = Field(1000.0, ge=1)
    """An update is refused if it is longer than the model and more than so many times as long as usual, which is the
    median of the last rounds; in the first round, more than so many times as long as the model."""
    largest_loss: float = Field(1e9, gt=0)
    """The largest magnitude of a client's loss, and of the other numbers it reports for the records."""
    largest_samples: int = Field(10**8, ge=1)
    """The most samples that a client may say it has: it counts by them in the mean."""


@dataclass(frozen=True)
class Bounds:
    """The bounds on the updates of a run."""

    settings: AdmissionSettings = field(default_factory=AdmissionSettings)
    steps: Callable[[int], int] | None = None
    """The steps that an order asks of a client with so many samples."""
    vectors: tuple[str, ...] | None = None
    """Names of the vectors that the algorithm sends up; None to take any."""
    numbers: tuple[str, ...] = ()
    """Names of the numbers that every client must send."""


def largest_norms(x: Tensor, norms: Norms, names: Sequence[str], settings: AdmissionSettings) -> dict[str, float]:
    """For each of `names` the length that a vector [P] may have in a round that starts at x [P]."""
    model = length(x)
    anything = settings.largest_norm * max(model, math.sqrt(x.numel()))  # a model may start at zero
    usual = {name: statistics.median_low(norms[name]) for name in names if norms.get(name)}
    return {
        # A client that comes late, to a model that hardly moves any more, may have as far to go as the first had.
        name: max(settings.largest_norm * usual[name], model) if usual.get(name, 0.0) > 0 else anything
        for name in names
    }


def remember(norms: Norms, accepted: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    """`norms` after one more round, in which vectors of these lengths, by name, were accepted."""
    names = sorted({name for lengths in accepted for name in lengths})
    medians = {name: statistics.median_low(lengths[name] for lengths in accepted if name in lengths) for name in names}
    return {**norms, **{name: (*norms.get(name, ()), median)[-REMEMBERED:] for name, median in medians.items()}}


def length(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))


def lengths(vectors: Vectors) -> dict[str, float]:
    return {name: length(vector) for name, vector in vectors.items()}
